"""The evaluate run: held-out captions and questions, with the right picture and with a shuffled one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ibllm_core.contract import layout
from ibllm_core.contract import metrics as names
from ibllm_core.contract.run_spec import EvaluateSpec, Outcome, Progress, ResultFile
from ibllm_core.contract.sampling import Sampling
from ibllm_core.contract.states import TerminationReason
from ibllm_core.data.collate import collate
from ibllm_core.data.dataset import NO_FEATURE, Dataset
from ibllm_core.data.mapped import open_compiled
from ibllm_core.data.packing import pack
from ibllm_core.model.generation import Request, generate
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.prompts import Prompter
from ibllm_core.storage import ObjectStore
from workers.model_loading import choose_dtype, fetch_base, load_adapted
from workers.reporting import Reporter
from workers.settings import WorkerSettings
from workers.tracking import MetricSpool

ROWS_PER_BATCH = 4
ANSWERS_PER_BATCH = 32
CAPTION_TOKENS = 24
ANSWER_TOKENS = 8
SHOWN_CAPTIONS = 12


def run(spec: EvaluateSpec, store: ObjectStore, settings: WorkerSettings, reporter: Reporter) -> Outcome:
    """Measure both adapters; the figures are in the outcome, the samples in ``evaluation.json``."""
    reporter.progress(Progress(phase="loading"))
    torch.set_num_threads(max(1, round(spec.resources.workers * spec.resources.cpus_per_worker)))
    base = fetch_base(store, spec.base, settings.ibllm_cache)
    tokenizer = base.tokenizer()
    dtype = choose_dtype(spec.resources.precision)
    first = store.download_folder(spec.stage1_adapter, settings.ibllm_cache)
    second = store.download_folder(spec.stage2_adapter, settings.ibllm_cache)
    result: dict[str, Any] = {}
    if spec.caption_dataset:
        data = open_compiled(store, spec.caption_dataset, settings.ibllm_cache)
        model = load_adapted(base, first, dtype).eval()
        result["stage1"] = _measure_captions(model, data, tokenizer, spec, reporter)
    if spec.question_dataset:
        data = open_compiled(store, spec.question_dataset, settings.ibllm_cache)
        model = load_adapted(base, second, dtype).eval()
        result["stage2"] = _measure_answers(model, data, tokenizer, spec, reporter)
    with MetricSpool(settings.mlflow_tracking_uri, spec.mlflow_run_id, settings.ibllm_cache / "spool") as spool:
        spool.log(0, _as_metrics(result))

    body = json.dumps(result, indent=1).encode()
    key = layout.report(spec.job_id, "evaluate", "evaluation.json")
    store.put(key, body)
    return Outcome(
        reason=TerminationReason.SUCCEEDED,
        outputs={stage: {k: v for k, v in part.items() if k != "samples"} for stage, part in result.items()},
        result_files=(ResultFile(key=key, filename="evaluation.json", bytes=len(body)),),
    )


def shuffled_media(data: Dataset, seed: int) -> np.ndarray:
    """For each sample a medium that is not its own, from the same dataset; text-only samples stay as they are."""
    own = np.asarray(data.feature_S)
    media = np.arange(data.num_features)
    media = media[media != (-1 if data.grey is None else data.grey)]
    if len(media) < 2:
        return own
    places = np.searchsorted(media, own) + np.random.default_rng(seed).integers(1, len(media), len(own))
    return np.where(data.has_media_S, media[places % len(media)], own)


def _measure_captions(
    model: ImageBindLLM, data: Dataset, tokenizer: Any, spec: EvaluateSpec, reporter: Reporter
) -> dict[str, Any]:
    right = np.asarray(data.feature_S)
    losses = {}
    variants = (
        # Words alone, without media of any kind.
        ("eval_loss_before", np.full_like(right, NO_FEATURE)),
        ("eval_loss", right),
        ("eval_loss_shuffled", shuffled_media(data, 0)),
    )
    for step, (name, media) in enumerate(variants):
        reporter.progress(Progress(phase="caption loss", step=step, total_steps=len(variants)))
        losses[name] = _mean_loss(model, data, media, tokenizer.eos_token_id)
    prompter = Prompter(tokenizer=tokenizer, template=spec.caption_template)
    prompts = dict(list(askable(model, data, CAPTION_TOKENS).items())[:SHOWN_CAPTIONS])
    captions = list(prompts)
    features = data.vectors(right[captions], epoch=None)
    written = _answer(model, list(prompts.values()), features, prompter, CAPTION_TOKENS) if prompts else []
    samples = [
        {
            "row": data.provenance.texts[i].row,
            "media": data.provenance.media[right[i]],
            "true": data.provenance.texts[i].answer,
            "generated": text,
        }
        for i, text in zip(captions, written, strict=True)
    ]
    return {**losses, "captions": len(data), "samples": samples}


def _measure_answers(
    model: ImageBindLLM, data: Dataset, tokenizer: Any, spec: EvaluateSpec, reporter: Reporter
) -> dict[str, Any]:
    prompter = Prompter(tokenizer=tokenizer, template=spec.question_template)
    found = askable(model, data, ANSWER_TOKENS)
    asked, prompts = list(found), list(found.values())
    counts = {"vqa_questions": len(asked), "vqa_left_out": len(data) - len(asked)}
    if not asked:
        return {**counts, "samples": []}
    right, wrong = np.asarray(data.feature_S)[asked], shuffled_media(data, 0)[asked]
    answers: dict[str, list[str]] = {}
    batches = range(0, len(asked), ANSWERS_PER_BATCH)
    for turn, (name, media) in enumerate((("right", right), ("shuffled", wrong))):
        answers[name] = []
        for done, start in enumerate(batches):
            step = turn * len(batches) + done
            reporter.progress(Progress(phase="answering questions", step=step, total_steps=2 * len(batches)))
            part = slice(start, start + ANSWERS_PER_BATCH)
            features = data.vectors(media[part], epoch=None)
            answers[name] += _answer(model, prompts[part], features, prompter, ANSWER_TOKENS)
    texts = [data.provenance.texts[i] for i in asked]
    truth = [text.answer for text in texts]
    samples = [
        {"question": text.instruction, "true": text.answer, "right": a, "shuffled": b}
        for text, a, b in zip(texts, answers["right"], answers["shuffled"], strict=True)
    ]
    return {
        "vqa_accuracy": _accuracy(answers["right"], truth),
        "vqa_accuracy_shuffled": _accuracy(answers["shuffled"], truth),
        **counts,
        "samples": samples[:100],
    }


def askable(model: ImageBindLLM, data: Dataset, limit: int) -> dict[int, list[int]]:
    """Prompts by the number of their sample: of samples with media, whose answer of ``limit`` tokens still fits."""
    room = model.llama.config.max_position_embeddings - limit - model.fusion.media_tokens
    prompts = {i: data.prompt(i) for i in np.flatnonzero(data.has_media_S).tolist()}
    return {i: prompt for i, prompt in prompts.items() if len(prompt) <= room}


@torch.inference_mode()
def _mean_loss(model: ImageBindLLM, data: Dataset, media: np.ndarray, pad_token: int) -> float:
    """Mean loss a label token, each sample with the medium that ``media`` gives it."""
    media_tokens = model.fusion.media_tokens
    lengths = data.lengths(media_tokens)
    row_tokens = int(lengths.max())
    rows = pack(np.arange(len(data)), lengths, row_tokens)
    total, count = 0.0, 0
    for start in range(0, len(rows), ROWS_PER_BATCH):
        part = rows[start : start + ROWS_PER_BATCH]
        batch = collate(
            data, part, row_tokens=row_tokens, pad_token=pad_token, media_tokens=media_tokens, feature_of=media
        )
        losses = model(batch)
        total, count = total + float(losses.sum()), count + losses.numel()
    return total / count


def _answer(
    model: ImageBindLLM, prompts: Sequence[Sequence[int]], features: np.ndarray, prompter: Prompter, limit: int
) -> list[str]:
    requests = [
        Request(prompt=prompt, feature=feature)
        for prompt, feature in zip(prompts, torch.from_numpy(features), strict=True)
    ]
    written = generate(model, requests, Sampling(max_new_tokens=limit), prompter.end_tokens)
    return [prompter.tokenizer.decode(tokens).strip() for tokens in written]


def _accuracy(answers: Sequence[str], truth: Sequence[str]) -> float:
    """Share of answers equal to the truth but for case and outer space."""
    return sum(a.strip().lower() == t.strip().lower() for a, t in zip(answers, truth, strict=True)) / len(truth)


def _as_metrics(result: dict[str, Any]) -> dict[str, float]:
    pairs = (
        ("stage1", "eval_loss_before", names.EVAL_LOSS_BEFORE),
        ("stage1", "eval_loss", names.EVAL_LOSS),
        ("stage1", "eval_loss_shuffled", names.EVAL_LOSS_SHUFFLED),
        ("stage2", "vqa_accuracy", names.EVAL_ACCURACY),
        ("stage2", "vqa_accuracy_shuffled", names.EVAL_ACCURACY_SHUFFLED),
    )
    return {metric: result[stage][key] for stage, key, metric in pairs if key in result.get(stage, {})}
