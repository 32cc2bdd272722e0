"""Taking up a checkpoint that is whole, the newest or another, decided by all ranks together."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from ibllm_core.errors import BaseMismatchError, IntegrityError, InvalidSpecError, ObjectMissingError
from workers.train.checkpoint import files
from workers.train.checkpoint.listing import Checkpoints, Opened
from workers.train.checkpoint.persistence import persistently
from workers.train.checkpoint.retention import best_first
from workers.train.checkpoint.state import CheckpointState
from workers.train.engine.base import Engine

Choose = Callable[[Checkpoints], int | None]
log = logging.getLogger(__name__)


def newest(checkpoints: Checkpoints) -> int | None:
    """The newest complete step."""
    return next(iter(checkpoints.complete()), None)


def best(checkpoints: Checkpoints) -> int | None:
    """The complete step of the lowest validation loss, where one has any; a store that is away is waited for."""
    return next(iter(best_first(persistently(checkpoints.validation_losses))), None)


def resume(
    engine: Engine,
    checkpoints: Checkpoints,
    cache: Path,
    *,
    recipe: str,
    base_sha256: str,
    choose: Choose = newest,
    on_damage: Callable[[str], None] = log.warning,
) -> Opened | None:
    """Load a checkpoint into the engine, the one that ``choose`` finds on the first rank; None where it finds none.

    A damaged one is removed, said through ``on_damage`` on the first rank, and ``choose`` asked again. Raises
    ``InvalidSpecError`` for a checkpoint of other settings, ``BaseMismatchError`` for one of another base.
    """
    while (step := agreed(checkpoints, choose)) is not None:
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
            on_damage(f"the checkpoint of step {step} is damaged and was removed: {reason}; another one is taken")
            checkpoints.remove(step)
        checkpoints.forget(step, cache)
        dist.barrier()
    return None


def agreed(checkpoints: Checkpoints, choose: Choose) -> int | None:
    """What the first rank chooses, on all ranks."""
    choice = [choose(checkpoints) if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(choice, src=0)
    return choice[0]


def _restore_counts(engine: Engine, state: CheckpointState) -> None:
    engine.updates, engine.loss_scale = state.updates, state.loss_scale
    engine.health = torch.tensor([float(state.skipped_steps), float(state.skipped_in_a_row), 0.0])


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
