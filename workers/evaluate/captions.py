"""Captions against people's: BLEU and CIDEr."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from ibllm_core.contract import metrics as names
from ibllm_core.evaluation.bleu import MAX_N, corpus_bleu
from ibllm_core.evaluation.cider import cider_d
from ibllm_core.evaluation.words import words_of
from workers.evaluate.bench import Bench
from workers.evaluate.measured import Measured

CAPTION_TOKENS = 32
SHOWN = 12
METRICS = {f"bleu_{n}": names.eval_bleu(n) for n in range(1, MAX_N + 1)} | {"cider": names.EVAL_CIDER}


def measure_captions(bench: Bench, measured: Measured) -> None:
    """One caption a medium, compared with the answers of all samples that show it."""
    everything = bench.tasks.captions
    groups = dict(islice(everything.items(), bench.max_samples))
    asked = bench.askable([samples[0] for samples in groups.values()], CAPTION_TOKENS)
    if bench.stage == "stage1" or groups:
        measured.figures["captions"] = sum(map(len, groups.values()))
        measured.figures["captions_left_out"] = len(groups) - len(asked)
        measured.figures["captioned_media"] = len(asked)
        measured.figures["captioned_media_of"] = len(everything)
    if not asked:
        return
    right, shuffled = bench.answers(asked, CAPTION_TOKENS, "writing captions")
    features = [int(feature) for feature in bench.data.feature_S[asked]]
    truths = [[bench.texts[sample].answer for sample in groups[feature]] for feature in features]
    references = [[words_of(truth) for truth in own] for own in truths]
    measured.add(_scores(right, references), _scores(shuffled, references), METRICS)
    rows = [
        {
            "row": bench.texts[sample].row,
            "media": bench.data.provenance.media[feature],
            "true": own[0],
            "references": own,
            "generated": mine,
            "shuffled": other,
        }
        for sample, feature, own, mine, other in zip(asked, features, truths, right, shuffled, strict=True)
    ]
    measured.answers += [{"task": "caption", **row} for row in rows]
    if bench.stage == "stage1":
        measured.samples += rows[:SHOWN]


def _scores(captions: Sequence[str], references: Sequence[Sequence[Sequence[str]]]) -> dict[str, float]:
    words = [words_of(caption) for caption in captions]
    bleu = {f"bleu_{n}": value for n, value in enumerate(corpus_bleu(words, references), start=1)}
    each = cider_d(words, references)
    return {**bleu, "cider": sum(each) / len(each)}
