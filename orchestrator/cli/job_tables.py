"""Jobs, their events, checkpoints and estimates on a terminal."""

from __future__ import annotations

from ibllm_core.contract.api.estimate import Estimate, StageEstimate
from ibllm_core.contract.api.jobs import FineTuningJob, FineTuningJobCheckpoint, FineTuningJobEvent
from ibllm_core.contract.states import RunState
from orchestrator.cli.listing import Listing
from orchestrator.cli.run_words import run_words
from orchestrator.cli.screen import Column, age, moment, print_facts, print_table, say, size, span

RUNS = (Column("run"), Column("state"), Column("tries", is_number=True), Column("now"))
STAGES = (
    Column("stage"),
    Column("samples", is_number=True),
    Column("tokens", is_number=True),
    Column("steps", is_number=True),
    Column("time", is_number=True),
    Column("GPU-hours", is_number=True),
    Column("memory"),
)
METRICS = ("train_loss", "valid_loss", "gate_abs_mean")


def print_job(job: FineTuningJob) -> None:
    """A job, and a line for each of its runs."""
    used = f"{job.gpu_hours:g}" + (f" of {job.budget.gpu_hours:g}" if job.budget else "")
    print_facts(
        (
            ("job", job.id),
            ("status", job.status + _asked(job)),
            ("error", job.error.message if job.error else None),
            ("base", job.model),
            ("model", job.fine_tuned_model),
            ("starts from", job.parent.name if job.parent else None),
            ("data", job.training_file),
            ("created", moment(job.created_at)),
            ("finished", moment(job.finished_at)),
            ("ends about", moment(job.estimated_finish)),
            ("priority", job.priority),
            ("GPU-hours", used),
            ("metadata", ", ".join(f"{key}={value}" for key, value in job.metadata.items())),
            ("results", ", ".join(job.result_files)),
        )
    )
    if job.runs:
        rows = ((run.kind, run.state, str(run.attempts), run_words(run)) for run in job.runs)
        print_table(RUNS, rows, title="\nruns")


def print_estimate(estimate: Estimate) -> None:
    """What a job would take."""
    print_table(STAGES, map(_stage_row, estimate.stages))
    print_facts(
        (
            ("in all", f"{span(estimate.seconds)} of training" if estimate.seconds is not None else "not known yet"),
            ("GPU-hours", None if estimate.gpu_hours is None else f"{estimate.gpu_hours:.2f}"),
            ("starts", estimate.starts),
            *((f"{stage.stage} rate", stage.basis) for stage in estimate.stages),
            *((f"{stage.stage} memory", stage.memory.why) for stage in estimate.stages if stage.memory),
        )
    )
    if estimate.waits_for:
        say(f"the check of {', '.join(estimate.waits_for)} has not ended: ask again when it has")


def _place(job: FineTuningJob) -> str:
    """The run that a job is at, or how it ended."""
    if job.error:
        return job.error.message
    for run in job.runs:
        if run.state != RunState.DONE:
            return f"{run.kind}: {run_words(run)}"
    return job.fine_tuned_model or ""


def _asked(job: FineTuningJob) -> str:
    """What a job was asked for and has not done yet."""
    if job.status.is_final or job.status == "paused":
        return ""
    return ", being cancelled" if job.cancel_requested else ", being paused" if job.pause_requested else ""


def _checkpoint_row(checkpoint: FineTuningJobCheckpoint) -> tuple[str, ...]:
    measured = [checkpoint.metrics.get(name) for name in METRICS]
    return (
        checkpoint.id,
        checkpoint.stage,
        f"{checkpoint.step_number:,}",
        *("" if value is None else f"{value:.4f}" for value in measured),
        age(checkpoint.created_at),
        checkpoint.fine_tuned_model_checkpoint,
    )


def _stage_row(stage: StageEstimate) -> tuple[str, ...]:
    about = "" if stage.tokens_are_counted else "about "
    return (
        stage.stage,
        _number(stage.samples),
        about + _number(stage.tokens) if stage.tokens is not None else "?",
        _number(stage.steps),
        span(stage.seconds) or "?",
        "?" if stage.gpu_hours is None else f"{stage.gpu_hours:.2f}",
        "?" if stage.memory is None else f"{size(stage.memory.bytes)} a worker, ZeRO {stage.memory.zero_stage}",
    )


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


JOBS: Listing[FineTuningJob] = Listing(
    what="jobs",
    columns=(
        Column("job", is_whole=True),
        Column("status", is_whole=True),
        Column("age", is_whole=True),
        Column("base", is_extra=True),
        Column("now", is_cut=True),
    ),
    row=lambda job: (job.id, job.status, age(job.created_at), job.model, _place(job)),
)
EVENTS: Listing[FineTuningJobEvent] = Listing(
    what="events",
    columns=(Column("time", is_whole=True), Column("level"), Column("event")),
    row=lambda event: (moment(event.created_at), event.level, event.message),
)
CHECKPOINTS = Listing(
    what="checkpoints",
    columns=(
        Column("checkpoint", is_whole=True),
        Column("stage"),
        Column("step", is_number=True),
        Column("loss", is_number=True),
        Column("valid", is_number=True),
        Column("gate", is_number=True),
        Column("age", is_whole=True),
        Column("name", is_whole=True, is_extra=True),
    ),
    row=_checkpoint_row,
)
