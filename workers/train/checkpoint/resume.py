"""Going on from the newest checkpoint that is whole, decided by all ranks together."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from ibllm_core.errors import BaseMismatchError, IntegrityError, InvalidSpecError, ObjectMissingError
from workers.train.checkpoint import files
from workers.train.checkpoint.listing import Checkpoints, Opened
from workers.train.checkpoint.state import CheckpointState
from workers.train.engine.base import Engine

log = logging.getLogger(__name__)


def resume(
    engine: Engine,
    checkpoints: Checkpoints,
    cache: Path,
    *,
    recipe: str,
    base_sha256: str,
    on_damage: Callable[[str], None] = log.warning,
) -> Opened | None:
    """Load the newest whole checkpoint into the engine; None where there is none.

    A damaged one is removed, said through ``on_damage`` on the first rank, and the one before it taken. Raises
    ``InvalidSpecError`` for a checkpoint of other settings, ``BaseMismatchError`` for one of another base.
    """
    while (step := _agreed(checkpoints)) is not None:
        opened, damage = _opened(checkpoints, step, cache)
        found: list[str | None] = [None] * engine.world_size
        dist.all_gather_object(found, damage)
        if not any(found):
            assert opened is not None
            _check(opened.state, recipe=recipe, base_sha256=base_sha256)
            files.load(opened.folder.iterdir(), engine)
            _restore_counts(engine, opened.state)
            dist.barrier()  # others of this node may still be opening its files
            checkpoints.forget(step, cache)  # its pages are mapped no more; a crash would find a newer one
            return opened
        if engine.rank == 0:
            reason = next(message for message in found if message)
            on_damage(f"the checkpoint of step {step} is damaged and was removed: {reason}; an earlier one is taken")
            checkpoints.remove(step)
        checkpoints.forget(step, cache)
        dist.barrier()
    return None


def _restore_counts(engine: Engine, state: CheckpointState) -> None:
    engine.updates, engine.loss_scale = state.updates, state.loss_scale
    engine.health = torch.tensor([float(state.skipped_steps), float(state.skipped_in_a_row), 0.0])


def _agreed(checkpoints: Checkpoints) -> int | None:
    """The newest complete step as the first rank sees it."""
    choice: list[int | None] = [None]
    if dist.get_rank() == 0:
        choice = [next(iter(checkpoints.complete()), None)]
    dist.broadcast_object_list(choice, src=0)
    return choice[0]


def _opened(checkpoints: Checkpoints, step: int, cache: Path) -> tuple[Opened | None, str | None]:
    try:
        return checkpoints.open(step, cache), None
    except (IntegrityError, ObjectMissingError) as error:
        return None, str(error)


def _check(state: CheckpointState, *, recipe: str, base_sha256: str) -> None:
    if state.base_sha256 != base_sha256:
        raise BaseMismatchError(
            f"the checkpoint was trained on a base with weights {state.base_sha256}, but this one's are {base_sha256}: "
            "use the same base, or start a new run"
        )
    if state.recipe != recipe:
        raise InvalidSpecError(
            f"the checkpoint of step {state.step} was made with other data or settings (recipe {state.recipe[:12]}, "
            f"now {recipe[:12]}): go on with the settings that it was made with, or start a new run"
        )
