"""The evaluate run: held-out captions and questions, with the right picture and with a shuffled one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ibllm_core.contract import layout
from ibllm_core.contract import metrics as names
from ibllm_core.contract.run_spec import EvaluateSpec, Outcome, Progress, ResultFile
from ibllm_core.contract.sampling import Sampling
from ibllm_core.contract.states import TerminationReason
from ibllm_core.data import dataset as datasets
from ibllm_core.data.collate import collate
from ibllm_core.data.dataset import GREY, NO_FEATURE, Dataset
from ibllm_core.data.packing import pack
from ibllm_core.data.prompts import Prompter
from ibllm_core.model.generation import Request, generate
from ibllm_core.model.imagebind_llm import ImageBindLLM
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
        data = _dataset(store, spec.caption_dataset, settings.ibllm_cache)
        model = load_adapted(base, first, dtype).eval()
        result["stage1"] = _measure_captions(model, data, tokenizer, spec, reporter)
    if spec.question_dataset:
        data = _dataset(store, spec.question_dataset, settings.ibllm_cache)
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


def shuffled_pictures(data: Dataset, seed: int) -> list[int]:
    """For each sample a picture that is not its own, from the same dataset; text-only samples stay as they are."""
    generator = np.random.default_rng(seed)
    num_pictures = len(data.features) - (GREY in data.feature_hashes)  # grey is the last
    if num_pictures < 2:
        return [sample.feature for sample in data.samples]
    return [
        int((sample.feature + generator.integers(1, num_pictures)) % num_pictures)
        if data.has_picture(index)
        else sample.feature
        for index, sample in enumerate(data.samples)
    ]


def _dataset(store: ObjectStore, identity: str, cache: Path) -> Dataset:
    return datasets.read(store.download_folder(layout.dataset(identity), cache))


def _measure_captions(
    model: ImageBindLLM, data: Dataset, tokenizer: Any, spec: EvaluateSpec, reporter: Reporter
) -> dict[str, Any]:
    right = [sample.feature for sample in data.samples]
    losses = {}
    variants = (
        # Words alone, without media of any kind.
        ("eval_loss_before", [NO_FEATURE] * len(right)),
        ("eval_loss", right),
        ("eval_loss_shuffled", shuffled_pictures(data, 0)),
    )
    for step, (name, pictures) in enumerate(variants):
        reporter.progress(Progress(phase="caption loss", step=step, total_steps=len(variants)))
        losses[name] = _mean_loss(model, data, pictures, tokenizer.eos_token_id)
    prompter = Prompter(tokenizer=tokenizer, template=spec.caption_template)
    prompts = dict(list(askable(model, data, prompter, CAPTION_TOKENS).items())[:SHOWN_CAPTIONS])
    captions = list(prompts)
    features = data.features[[right[i] for i in captions]]
    written = _answer(model, list(prompts.values()), features, prompter, CAPTION_TOKENS) if prompts else []
    samples = [
        {
            "row": data.samples[i].row,
            "picture_sha256": data.feature_hashes[right[i]],
            "true": data.samples[i].answer,
            "generated": text,
        }
        for i, text in zip(captions, written, strict=True)
    ]
    return {**losses, "captions": len(data.samples), "samples": samples}


def _measure_answers(
    model: ImageBindLLM, data: Dataset, tokenizer: Any, spec: EvaluateSpec, reporter: Reporter
) -> dict[str, Any]:
    prompter = Prompter(tokenizer=tokenizer, template=spec.question_template)
    found = askable(model, data, prompter, ANSWER_TOKENS)
    asked, prompts = list(found), list(found.values())
    counts = {"vqa_questions": len(asked), "vqa_left_out": len(data.samples) - len(asked)}
    if not asked:
        return {**counts, "samples": []}
    shuffled = shuffled_pictures(data, 0)
    right, wrong = [data.samples[i].feature for i in asked], [shuffled[i] for i in asked]
    answers: dict[str, list[str]] = {}
    batches = range(0, len(asked), ANSWERS_PER_BATCH)
    for turn, (name, pictures) in enumerate((("right", right), ("shuffled", wrong))):
        answers[name] = []
        for done, start in enumerate(batches):
            step = turn * len(batches) + done
            reporter.progress(Progress(phase="answering questions", step=step, total_steps=2 * len(batches)))
            part = slice(start, start + ANSWERS_PER_BATCH)
            features = data.features[pictures[part]]
            answers[name] += _answer(model, prompts[part], features, prompter, ANSWER_TOKENS)
    truth = [data.samples[i].answer for i in asked]
    samples = [
        {"question": data.samples[i].instruction, "true": true, "right": a, "shuffled": b}
        for i, true, a, b in zip(asked, truth, answers["right"], answers["shuffled"], strict=True)
    ]
    return {
        "vqa_accuracy": _accuracy(answers["right"], truth),
        "vqa_accuracy_shuffled": _accuracy(answers["shuffled"], truth),
        **counts,
        "samples": samples[:100],
    }


def askable(model: ImageBindLLM, data: Dataset, prompter: Prompter, limit: int) -> dict[int, list[int]]:
    """Prompts by the number of their sample: of samples with a picture, whose answer of ``limit`` tokens still fits."""
    room = model.llama.config.max_position_embeddings - limit - model.fusion.media_tokens
    prompts = {i: prompter.prompt(s.instruction) for i, s in enumerate(data.samples) if data.has_picture(i)}
    return {i: prompt for i, prompt in prompts.items() if len(prompt) <= room}


@torch.inference_mode()
def _mean_loss(model: ImageBindLLM, data: Dataset, pictures: Sequence[int], pad_token: int) -> float:
    """Mean loss a label token, each sample with the picture that ``pictures`` gives it."""
    media_tokens = model.fusion.media_tokens
    lengths = data.lengths(media_tokens)
    row_tokens = max(lengths)
    rows = pack(range(len(data.samples)), lengths, row_tokens)
    total, count = 0.0, 0
    for start in range(0, len(rows), ROWS_PER_BATCH):
        part = rows[start : start + ROWS_PER_BATCH]
        batch = collate(
            data, part, row_tokens=row_tokens, pad_token=pad_token, media_tokens=media_tokens, feature_of=pictures
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
