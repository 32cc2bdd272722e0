"""The evaluate run: each stage's adapter on its held-out data, with the right media and with shuffled ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ibllm_core.adapter import files
from ibllm_core.contract import layout
from ibllm_core.contract.job_spec import TrainingStage
from ibllm_core.contract.run_spec import EvaluateSpec, Outcome, Progress, ResultFile
from ibllm_core.contract.states import TerminationReason
from ibllm_core.data.mapped import open_compiled
from ibllm_core.evaluation.gates import gate_metrics, gate_table
from ibllm_core.prompts import Prompter
from ibllm_core.storage import Store
from workers.adapter_source import fetch_adapter
from workers.evaluate.bench import Bench
from workers.evaluate.measured import Measured
from workers.evaluate.stage import measure
from workers.model_loading import Base, choose_dtype, fetch_base, load_adapted
from workers.reporting import Reporter
from workers.settings import WorkerSettings
from workers.tracking.history import History
from workers.tracking.publisher import Publisher

RUN = "evaluate"
GATES = "fusion.gates"  # in an adapter
DETAILS = frozenset({"samples", "gates"})  # in evaluation.json, and too long for an outcome


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """A stage to measure: where its adapter and its dataset lie."""

    name: TrainingStage
    adapter: str
    dataset: str | None
    template: str


def run(spec: EvaluateSpec, store: Store, settings: WorkerSettings, reporter: Reporter) -> Outcome:
    """Measure the adapters that are named; figures are in the outcome, all of it in the result files."""
    reporter.progress(Progress(phase="loading"))
    torch.set_num_threads(max(1, round(spec.resources.workers * spec.resources.cpus_per_worker)))
    base = fetch_base(store, spec.base, settings.ibllm_cache)
    result: dict[str, Any] = {}
    gates: dict[str, Any] = {}
    answers: list[dict[str, Any]] = []
    history = History(settings.ibllm_cache / "history", spec)
    with Publisher(history, store, spec, RUN):
        for number, stage in _stages(spec):
            measured, magnitudes_LG = _measure(stage, spec, base, store, settings, reporter)
            result[stage.name] = {**measured.figures, "samples": measured.samples}
            answers += [{"stage": stage.name, **answer} for answer in measured.answers]
            if magnitudes_LG is not None:
                measured.metrics |= gate_metrics(magnitudes_LG)
                result[stage.name]["gates"] = gate_table(magnitudes_LG)
                gates[stage.name] = {"abs": magnitudes_LG.tolist()}
            history.log(number, measured.metrics)
    contents = {"evaluation.json": json.dumps(result, indent=1)}
    if gates:
        contents["gates.json"] = json.dumps(gates)
    if answers:
        contents["evaluation_answers.jsonl"] = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in answers)
    return Outcome(
        reason=TerminationReason.SUCCEEDED,
        outputs={stage: {k: v for k, v in part.items() if k not in DETAILS} for stage, part in result.items()},
        result_files=_keep(store, spec, contents),
    )


def _stages(spec: EvaluateSpec) -> list[tuple[int, _Stage]]:
    """The stages with an adapter, each with its number, which is the step of its metrics."""
    named: tuple[tuple[TrainingStage, str | None, str | None, str], ...] = (
        ("stage1", spec.stage1_adapter, spec.caption_dataset, spec.caption_template),
        ("stage2", spec.stage2_adapter, spec.question_dataset, spec.question_template),
    )
    return [
        (number, _Stage(name=name, adapter=adapter, dataset=dataset, template=template))
        for number, (name, adapter, dataset, template) in enumerate(named, start=1)
        if adapter is not None
    ]


def _measure(
    stage: _Stage, spec: EvaluateSpec, base: Base, store: Store, settings: WorkerSettings, reporter: Reporter
) -> tuple[Measured, Tensor | None]:
    """What the data allows, and the gates ``|g|`` as ``[layers, groups]``; None for a fusion without gates."""
    folder = fetch_adapter(store, stage.adapter, settings.ibllm_cache)
    found = files.read(folder).tensors.get(GATES)
    magnitudes_LG = None if found is None else found.float().abs()
    if stage.dataset is None:
        return Measured(), magnitudes_LG
    on_gpu = spec.resources.gpus_per_worker > 0 and torch.cuda.is_available()
    model = load_adapted(base, folder, choose_dtype(spec.resources.precision)).eval()
    bench = Bench(
        stage=stage.name,
        model=model.to("cuda" if on_gpu else "cpu"),
        data=open_compiled(store, stage.dataset, settings.ibllm_cache),
        prompter=Prompter(tokenizer=base.tokenizer(), template=stage.template),
        max_samples=spec.max_samples,
        tell=partial(_tell, reporter, stage.name),
    )
    return measure(bench), magnitudes_LG


def _tell(reporter: Reporter, stage: str, phase: str, step: int, total: int) -> None:
    reporter.progress(Progress(phase=f"{stage}: {phase}", step=step, total_steps=total))


def _keep(store: Store, spec: EvaluateSpec, contents: Mapping[str, str]) -> tuple[ResultFile, ...]:
    kept = []
    for filename, text in contents.items():
        key, body = layout.report(spec.job_id, RUN, filename), text.encode()
        store.put(key, body)
        kept.append(ResultFile(key=key, filename=filename, bytes=len(body)))
    return tuple(kept)
