"""The spec of an attempt, from the job's request and the outputs of its earlier runs: pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ibllm_core.contract import layout
from ibllm_core.contract.job_spec import JobRequest, StageRequest
from ibllm_core.contract.run_spec import CompileInput, CompileSpec, DatasetShare, EvaluateSpec, RunSpec, TrainSpec
from ibllm_core.contract.states import RunKind
from orchestrator.db.models import Attempt, Job, Run


@dataclass(frozen=True, kw_only=True)
class SpecSources:
    """What a spec is made of beside the attempt: the job's parsed request, its files, its runs' outputs.

    ``parent`` is the prefix that the first stage starts from, ``data_prefixes`` are the addresses that rows may name;
    ``uploads`` has what a ``CompileInput`` says of each uploaded file, by the file's id.
    """

    request: JobRequest
    parent: str | None
    data_prefixes: tuple[str, ...]
    uploads: dict[str, dict[str, str]]
    outputs: dict[str, dict[str, Any]]
    service_url: str


def build(job: Job, run: Run, attempt: Attempt, sources: SpecSources) -> RunSpec:
    """The spec for an attempt of ``run``; parents have succeeded, so that their outputs are there."""
    request = sources.request
    common: dict[str, Any] = {
        "job_id": job.id,
        "run_id": run.id,
        "attempt_id": attempt.id,
        "attempt_number": attempt.number,
        "service_url": sources.service_url,
        "token": attempt.token,
        "base": request.model,
        "encoder": request.encoder,
        "adapter": request.adapter,
        "seed": request.seed,
        "resources": request.resources_of(run.kind),
    }
    if run.kind == RunKind.COMPILE:
        return CompileSpec(**common, inputs=_inputs(sources), data=request.data, data_prefixes=sources.data_prefixes)
    datasets = sources.outputs[RunKind.COMPILE]["datasets"]
    if run.kind == RunKind.EVALUATE:
        return EvaluateSpec(**common, **_evaluated(sources, datasets))
    stage = next(stage for stage in request.stages if stage.stage == run.kind)
    return TrainSpec(
        **common,
        stage=stage.stage,
        datasets=_shares(stage, datasets),
        template=stage.template,
        parent_adapter=_start_of(stage, sources),
        hyperparameters=stage.hyperparameters,
        checkpoints=stage.checkpoints,
        evaluation=stage.evaluation,
        validation_dataset=datasets.get(f"{stage.stage}.validation_file"),
        adapter_prefix=layout.model(job.id)
        if stage is request.stages[-1]
        else f"{layout.run(job.id, run.kind)}/adapter",
    )


def _start_of(stage: StageRequest, sources: SpecSources) -> str | None:
    """Where a stage starts: from the stage before it, or from what the job starts from."""
    if stage is sources.request.stages[0]:
        return sources.parent
    adapter: str = sources.outputs[RunKind(sources.request.stages[0].stage)]["adapter"]
    return adapter


def _inputs(sources: SpecSources) -> tuple[CompileInput, ...]:
    return tuple(
        CompileInput(
            name=f"{stage.stage}.{field}",
            location=location,
            template=stage.template,
            row_tokens=stage.hyperparameters.row_tokens,
            **sources.uploads.get(location, {}),
        )
        for stage in sources.request.stages
        for field, location in stage.files().items()
    )


def _evaluated(sources: SpecSources, datasets: dict[str, str]) -> dict[str, Any]:
    """What an evaluation is told of each stage that the job has."""
    fields: dict[str, Any] = {}
    for stage in sources.request.stages:
        data = {"stage1": "caption", "stage2": "question"}[stage.stage]
        fields[f"{stage.stage}_adapter"] = sources.outputs[RunKind(stage.stage)]["adapter"]
        fields[f"{data}_dataset"] = datasets.get(f"{stage.stage}.validation_file")
        fields[f"{data}_template"] = stage.template
    return fields


def _shares(stage: StageRequest, datasets: dict[str, str]) -> tuple[DatasetShare, ...]:
    shares = {"training_file": 1.0, **{f"mix.{index}": share.weight for index, share in enumerate(stage.mix)}}
    return tuple(
        DatasetShare(dataset=datasets[f"{stage.stage}.{field}"], weight=weight) for field, weight in shares.items()
    )
