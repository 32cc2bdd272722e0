"""Which samples three steps in a row could not be trained on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch

from ibllm_core.data.collate import collate
from ibllm_core.data.corpus import Corpus
from ibllm_core.data.packing import PackedBatch
from ibllm_core.errors import InvalidSpecError
from workers.train.health import STREAK
from workers.train.loop import Loop

NAMED = 20


def explain(loop: Loop, last_step: int, *, went_back: bool) -> InvalidSpecError:
    """The error that names the samples whose loss or feature is not finite; all ranks must call it."""
    seen = [(sample, batch.epoch) for batch in _batches(loop, last_step) for row in batch.rows for sample in row]
    members = list(dict.fromkeys(sample for sample, _ in seen))
    bad = list(dict.fromkeys(sample for sample, epoch in seen if not _is_finite(loop, sample, epoch)))
    named = bad or members
    what = "samples whose loss or feature is not finite" if bad else "none of whose samples alone is at fault, among"
    listed = ", ".join(name_of(loop.feed.corpus, sample) for sample in named[:NAMED])
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    tried = "before and after going back to a checkpoint" if went_back else "and there is no checkpoint to go back to"
    remedy = "remove or mend these rows" if bad else "lower learning_rate and gate_learning_rate, or use fp32"
    return InvalidSpecError(
        f"the gradients of steps {last_step - STREAK + 1} to {last_step} were not finite, {tried}; {what}: "
        f"{listed}{more}: {remedy}",
        step=last_step,
        samples=[name_of(loop.feed.corpus, sample) for sample in named],
    )


def name_of(corpus: Corpus, sample: int) -> str:
    """A sample as its owner knows it: which dataset of the stage, and the row there."""
    for number, part in enumerate(corpus.parts):
        if sample < len(part):
            return f"row {part.provenance.texts[sample].row} of datasets.{number}"
        sample -= len(part)
    raise IndexError(sample)


def _batches(loop: Loop, last_step: int) -> Iterator[PackedBatch]:
    lengths = loop.feed.corpus.lengths(loop.feed.media_tokens)
    return islice(loop.feed.sampler.batches(lengths), last_step - STREAK, last_step)


@torch.no_grad()
def _is_finite(loop: Loop, sample: int, epoch: int) -> bool:
    corpus, feed = loop.feed.corpus, loop.feed
    if not np.isfinite(corpus.vectors(_features(corpus, sample), epoch)).all():
        return False
    batch = collate(
        corpus,
        [(sample,)],
        row_tokens=feed.sampler.row_tokens,
        pad_token=feed.pad_token,
        media_tokens=feed.media_tokens,
        epoch=epoch,
    )
    return bool(loop.engine.forward(batch.to(loop.device)).isfinite().all())


def _features(corpus: Corpus, sample: int) -> np.ndarray:
    features = corpus.gather(np.array([sample])).feature_S
    return features[features >= 0]
