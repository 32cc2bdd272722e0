"""Everything that can be known to be wrong with a training run before its weights are loaded, found at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict

from ibllm_core.contract.run_spec import TrainSpec
from ibllm_core.errors import InvalidSpecError
from ibllm_core.planning.activations import Training
from ibllm_core.planning.advice import out_of_memory_advice
from ibllm_core.planning.base_size import BaseSize
from ibllm_core.planning.choice import HEADROOM, Plan, Room, Wishes, choose, size_text
from ibllm_core.storage import Store
from workers.train.facts import Facts, Problem, read_facts
from workers.train.inputs import input_problems


def preflight(spec: TrainSpec, store: Store, room: Room, element_bytes: int) -> Plan:
    """The plan of a run that can work; ``InvalidSpecError`` lists every problem of one that cannot.

    ``room`` is the memory of a worker, ``element_bytes`` the size of a weight and of an activation on its device. Reads
    manifests, configurations and headers only.
    """
    facts = read_facts(spec, store)
    _refuse(spec, find_problems(spec, facts, room, element_bytes))
    plan = plan_of(spec, facts, room, element_bytes)
    assert plan is not None
    return plan


def check(spec: TrainSpec, store: Store) -> None:
    """``preflight`` before there is a worker: everything but the memory, of which only a worker knows."""
    _refuse(spec, find_problems(spec, read_facts(spec, store), None, 0))


def _refuse(spec: TrainSpec, problems: list[Problem]) -> None:
    if problems:
        listed = "".join(f"\n- {problem}" for problem in problems)
        raise InvalidSpecError(
            f"{spec.stage} cannot be trained as it is asked for; problems: {len(problems)}{listed}",
            problems=[asdict(problem) for problem in problems],
        )


def find_problems(spec: TrainSpec, facts: Facts, room: Room | None, element_bytes: int) -> list[Problem]:
    """Every problem of a run; pure. Without ``room`` the memory is left out."""
    on_gpu = room.is_gpu if room else spec.resources.gpus_per_worker > 0
    problems = [*facts.missing, *_settings(spec, on_gpu), *_steps(spec, facts), *input_problems(spec, facts)]
    if room and not any(problem.path.startswith("resources.") for problem in problems):
        problems += _memory(spec, facts, room, element_bytes)
    return problems


def plan_of(spec: TrainSpec, facts: Facts, room: Room, element_bytes: int) -> Plan | None:
    """How the run would use its workers; None where base or data are not known."""
    samples = sum(data.samples for data in facts.datasets.values())
    if not (facts.base and samples):
        return None
    tokens = sum(data.tokens for data in facts.datasets.values())
    feature_dim = next(iter(facts.datasets.values())).feature_dim
    return plan_training(
        spec,
        facts.base.size,
        room,
        feature_dim=feature_dim,
        element_bytes=element_bytes,
        sample_tokens=tokens / samples + spec.adapter.media_tokens,
    )


def plan_training(
    spec: TrainSpec, base: BaseSize, room: Room, *, feature_dim: int, element_bytes: int, sample_tokens: float
) -> Plan:
    """The plan of a run; pure. ``sample_tokens`` is the mean length of the data's samples."""
    training = Training(
        base=base,
        adapter=spec.adapter,
        stage=spec.stage,
        feature_dim=feature_dim,
        element_bytes=element_bytes,
        is_on_gpu=room.is_gpu,
        checkpoints_activations=spec.resources.activation_checkpointing,
    )
    wishes = Wishes.of(
        spec.resources,
        row_tokens=spec.hyperparameters.row_tokens,
        rows_per_step=spec.hyperparameters.rows_per_step,
        sample_tokens=sample_tokens,
    )
    return choose(training, wishes, room)


def _settings(spec: TrainSpec, on_gpu: bool) -> Iterator[Problem]:
    resources, settings = spec.resources, spec.hyperparameters
    if settings.rows_per_step < resources.workers:
        idle = resources.workers - settings.rows_per_step
        yield Problem(
            path="hyperparameters.rows_per_step",
            what=f"it is {settings.rows_per_step}, so that {idle} of {resources.workers} workers would idle",
            remedy=f"raise it to {resources.workers} or more, or lower resources.workers to {settings.rows_per_step}",
        )
    if resources.micro_batch_tokens and resources.micro_batch_tokens < settings.row_tokens:
        yield Problem(
            path="resources.micro_batch_tokens",
            what=f"{resources.micro_batch_tokens} tokens hold no row of {settings.row_tokens}",
            remedy=f"raise it to {settings.row_tokens}, or lower hyperparameters.row_tokens",
        )
    if resources.precision == "fp16" and not on_gpu:
        yield Problem(
            path="resources.precision",
            what="fp16 needs a GPU, and the workers have none",
            remedy="set it to auto, or raise resources.gpus_per_worker",
        )
    if resources.offload in ("optimizer", "parameters"):
        yield from _offload(spec, on_gpu)
    if spec.stage == "stage2" and not spec.parent_adapter:
        yield Problem(
            path="parent_adapter",
            what="stage2 needs the adapter of a stage1 or stage2, and none is given",
            remedy="train stage1 first, and give its adapter",
        )
    if spec.checkpoints.result == "best":
        yield from _best(spec)


def _best(spec: TrainSpec) -> Iterator[Problem]:
    if not spec.validation_dataset:
        yield Problem(
            path="checkpoints.result",
            what="the best checkpoint is that of the lowest validation loss, and there is no validation data",
            remedy="give a validation file, or set it to last",
        )
    if spec.checkpoints.keep_best == 0:
        yield Problem(
            path="checkpoints.keep_best",
            what="it is 0, so that the best checkpoint would not be kept until the end",
            remedy="raise it to 1, or set checkpoints.result to last",
        )


def _offload(spec: TrainSpec, on_gpu: bool) -> Iterator[Problem]:
    offload, stage = spec.resources.offload, spec.resources.zero_stage
    if not on_gpu:
        yield Problem(
            path="resources.offload",
            what="the workers have no GPU, so that everything lies in the host's memory already",
            remedy="set it to none",
        )
    needed = 1 if offload == "optimizer" else 3
    if stage != "auto" and stage < needed:
        yield Problem(
            path="resources.offload",
            what=f"{offload} can be offloaded from ZeRO {needed} on, but resources.zero_stage is {stage}",
            remedy=f"set resources.zero_stage to {needed} or auto, or resources.offload to none",
        )


def _steps(spec: TrainSpec, facts: Facts) -> Iterator[Problem]:
    settings = spec.hyperparameters
    if settings.warmup_epochs is not None and settings.warmup_epochs > settings.n_epochs:
        yield Problem(
            path="hyperparameters.warmup_epochs",
            what=f"the rate would rise for {settings.warmup_epochs:g} epochs of {settings.n_epochs}",
            remedy="lower it, or raise hyperparameters.n_epochs",
        )
    steps = most_steps(spec, facts)
    if settings.warmup_steps is not None and steps is not None and settings.warmup_steps > steps:
        yield Problem(
            path="hyperparameters.warmup_steps",
            what=f"the rate would rise for {settings.warmup_steps} steps of at most {steps}",
            remedy="lower it, or raise hyperparameters.n_epochs or max_steps",
        )


def most_steps(spec: TrainSpec, facts: Facts) -> int | None:
    """Steps that the run cannot exceed; None where neither ``max_steps`` nor the data says.

    Two rows that follow each other in the packing hold more than one row's tokens, else they were one row.
    """
    settings = spec.hyperparameters
    shares = [data for path, data in facts.datasets.items() if path != "validation_dataset"]
    if len(shares) < len(spec.datasets):
        return settings.max_steps
    samples = math.ceil(sum(data.weight * data.samples for data in shares))
    tokens = sum(data.weight * (data.tokens + spec.adapter.media_tokens * data.samples) for data in shares)
    rows = min(samples, math.ceil(2 * tokens / settings.row_tokens) + 1)
    steps = settings.n_epochs * math.ceil(rows / settings.rows_per_step)
    return min(steps, settings.max_steps or steps)


def _memory(spec: TrainSpec, facts: Facts, room: Room, element_bytes: int) -> Iterator[Problem]:
    plan = plan_of(spec, facts, room, element_bytes)
    if plan is None:
        return
    if not plan.fits:
        usable = size_text(HEADROOM * room.device)
        path = "base" if plan.memory.frozen > HEADROOM * room.device else "hyperparameters.row_tokens"
        if spec.resources.micro_batch_tokens:
            path = "resources.micro_batch_tokens"
        what = f"a worker would need more than the {usable} that it can use; the least is {plan.why}"
        yield Problem(path=path, what=what, remedy=out_of_memory_advice(plan))
        return
    fewest = spec.resources.min_workers
    if fewest is None or fewest == spec.resources.workers:
        return
    resources = spec.resources.model_copy(update={"workers": fewest})
    alone = plan_of(spec.model_copy(update={"resources": resources}), facts, room, element_bytes)
    if alone is not None and not alone.fits:
        what = f"with as few as {fewest} workers each needs too much: {alone.why}"
        yield Problem(path="resources.min_workers", what=what, remedy=f"raise it; or {out_of_memory_advice(alone)}")
