"""What a job would take: tokens, steps, memory, time; from what was measured where there is anything of its like."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ibllm_core.contract import layout
from ibllm_core.contract.api.estimate import Estimate, MemoryEstimate, StageEstimate
from ibllm_core.contract.job_spec import JobRequest, Resources, StageRequest
from ibllm_core.contract.states import JobStatus, RunState, TerminationReason
from ibllm_core.contract.submission import JobSubmission
from ibllm_core.planning.activations import Training
from ibllm_core.planning.base_size import BaseSize, read_size
from ibllm_core.planning.choice import Room, Wishes, choose
from orchestrator.db.models import ClusterSnapshot, Job, Run
from orchestrator.jobs.completion import FileFacts
from orchestrator.jobs.prepare import Shop, prepare

PACKED_SHARE = 0.97  # of a row's places that samples fill; measured on the demo's data
LIKE_RUNS = 20
GPU_BYTES = 80_000_000_000
FEATURE_DIM = 1024  # ImageBind's; the bind network's size hardly depends on it
DEFAULT_SAMPLE_TOKENS = 32.0


@dataclass(frozen=True, kw_only=True)
class Amount:
    """Samples and tokens of one epoch."""

    samples: int
    tokens: float
    is_counted: bool


def estimate(session: Session, shop: Shop, project_id: str, submission: JobSubmission) -> Estimate:
    """Everything a create would check is checked, and nothing is written."""
    prepared = prepare(session, shop, project_id, submission)
    request = prepared.request
    if request is None:
        return Estimate(
            request=submission,
            waits_for=list(prepared.waits_for),
            stages=[],
            seconds=None,
            gpu_hours=None,
            starts="after the check of its files",
            starts_at=None,
        )
    size = read_size(shop.store.get_json(f"{layout.base(request.model)}/config.json"), request.model)
    stages = [
        _estimate_stage(session, request, stage, _amount(stage, index, submission, prepared.files), size)
        for index, stage in enumerate(request.stages)
    ]
    starts, starts_at = _start(session, request)
    return Estimate(
        request=request,
        waits_for=[],
        stages=stages,
        seconds=_total([stage.seconds for stage in stages]),
        gpu_hours=_total([stage.gpu_hours for stage in stages]),
        starts=starts,
        starts_at=starts_at,
    )


def steps_of(stage: StageRequest, amount: Amount) -> int:
    """Optimizer steps of a stage whose epoch has an amount of data."""
    settings = stage.hyperparameters
    rows = math.ceil(amount.tokens / (settings.row_tokens * PACKED_SHARE))
    steps = settings.n_epochs * max(1, math.ceil(rows / settings.rows_per_step))
    return min(steps, settings.max_steps or steps)


def _amount(stage: StageRequest, index: int, submission: JobSubmission, files: dict[str, FileFacts]) -> Amount | None:
    """What an epoch passes over: the training file, and each share of the mix as often as its weight says."""
    prefix = "" if submission.stages is None else f"stages.{index}."
    shares = [(files[f"{prefix}training_file"], 1.0)]
    shares += [(files[f"{prefix}mix.{number}"], share.weight) for number, share in enumerate(stage.mix)]
    samples = tokens = 0.0
    for facts, weight in shares:
        if facts.samples is None or facts.sample_tokens is None:
            return None
        samples += weight * facts.samples
        tokens += weight * facts.samples * facts.sample_tokens
    is_counted = all(facts.tokens is not None for facts, _ in shares)
    return Amount(samples=round(samples), tokens=tokens, is_counted=is_counted)


def _estimate_stage(
    session: Session, request: JobRequest, stage: StageRequest, amount: Amount | None, size: BaseSize
) -> StageEstimate:
    resources = request.resources_of(stage.stage)
    rate, basis = _rate(session, request.model, stage.stage, resources)
    steps = steps_of(stage, amount) if amount else stage.hyperparameters.max_steps
    places = stage.hyperparameters.row_tokens * stage.hyperparameters.rows_per_step
    tokens = (
        None if amount is None or steps is None else min(amount.tokens * stage.hyperparameters.n_epochs, steps * places)
    )
    seconds = tokens / rate if tokens is not None and rate else None
    gpus = resources.workers * resources.gpus_per_worker
    return StageEstimate(
        stage=stage.stage,
        samples=amount.samples if amount else None,
        tokens=None if tokens is None else round(tokens),
        tokens_are_counted=amount.is_counted if amount else False,
        steps=steps,
        tokens_per_second=rate,
        basis=basis,
        seconds=seconds,
        gpu_hours=None if seconds is None else seconds * gpus / 3600,
        memory=_memory(request, stage, resources, size, amount),
    )


def _rate(session: Session, base: str, stage: str, resources: Resources) -> tuple[float | None, str]:
    """Tokens a second that trainings of the same base, stage and workers reached, in the median of the newest."""
    query = (
        select(Run.outputs, Run.started_at, Run.finished_at)
        .join(Job, Job.id == Run.job_id)
        .where(Run.kind == stage, Run.state == RunState.DONE, Run.reason == TerminationReason.SUCCEEDED)
        .where(
            Job.request["model"].astext == base,
            Job.request["resources"]["workers"].as_integer() == resources.workers,
            Job.request["resources"]["gpus_per_worker"].as_float() == resources.gpus_per_worker,
        )
        .order_by(Run.finished_at.desc())
        .limit(LIKE_RUNS)
    )
    rates = [
        outputs["trained_tokens"] / (finished_at - started_at).total_seconds()
        for outputs, started_at, finished_at in session.execute(query).tuples()
        if outputs.get("trained_tokens") and started_at and finished_at
    ]
    like = f"{base}, {stage}, {resources.workers} workers with {resources.gpus_per_worker:g} GPU each"
    if not rates:
        return None, f"no training of its like has succeeded yet: {like}"
    return statistics.median(
        rates
    ), f"the median of {len(rates)} trainings of its like, start and saving included: {like}"


def _memory(
    request: JobRequest, stage: StageRequest, resources: Resources, size: BaseSize, amount: Amount | None
) -> MemoryEstimate:
    is_gpu = resources.gpus_per_worker > 0
    training = Training(
        base=size,
        adapter=request.adapter,
        stage=stage.stage,
        feature_dim=FEATURE_DIM,
        element_bytes=4 if resources.precision == "fp32" else 2,
        is_on_gpu=is_gpu,
        checkpoints_activations=resources.activation_checkpointing,
    )
    wishes = Wishes.of(
        resources,
        row_tokens=stage.hyperparameters.row_tokens,
        rows_per_step=stage.hyperparameters.rows_per_step,
        sample_tokens=amount.tokens / amount.samples if amount and amount.samples else DEFAULT_SAMPLE_TOKENS,
    )
    plan = choose(training, wishes, Room(device=GPU_BYTES, host=GPU_BYTES if is_gpu else 0, is_gpu=is_gpu))
    return MemoryEstimate(
        bytes=round(plan.memory.device),
        zero_stage=plan.zero_stage,
        offload=plan.offload,
        micro_batch_tokens=plan.micro_batch_tokens,
        why=plan.why,
    )


def _start(session: Session, request: JobRequest) -> tuple[str, int | None]:
    """From the cluster as it was last seen: at once where all it needs is free and nobody waits."""
    snapshot = session.get(ClusterSnapshot, 1)
    view: dict[str, Any] = snapshot.view if snapshot else {}
    if not view.get("reachable"):
        return "unknown: the cluster was not reachable when it was last looked at", None
    need = request.resources
    gpus, cpus = need.workers * need.gpus_per_worker, need.workers * need.cpus_per_worker
    have_gpus = sum(node["gpus"] for node in view["nodes"])
    have_cpus = sum(node["cpus"] for node in view["nodes"])
    if gpus > have_gpus or cpus > have_cpus:
        return (
            f"not on this cluster: it needs {cpus:g} CPU and {gpus:g} GPU, of {have_cpus:g} and {have_gpus:g}",
            None,
        )
    waiting = session.scalars(select(Job.id).where(Job.status == JobStatus.QUEUED).limit(1000)).all()
    if not waiting and not view["running"]:
        return "now: the cluster is idle", int(time.time())
    return f"after what runs ({len(view['running'])} runs) and what waits ({len(waiting)} jobs) lets it in", None


def _total(values: Sequence[float | None]) -> float | None:
    return None if None in values else sum(value for value in values if value is not None)
