"""What lies inside an exception that crossed Ray, and which of several ranks' failures the others follow from."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ibllm_core.errors import CoreError, StorageError

LOST = ("WorkerHealthCheckFailedError", "WorkerHealthCheckTimeoutError", "RayActorError", "ActorDiedError")
# What a rank raises whose peer went away in a collective: of types of torch, and of gloo in words alone.
COLLECTIVE_TYPES = ("DistBackendError", "DistNetworkError")
GLOO = re.compile(r"gloo/|Connection (closed by peer|reset|refused)")


class WorkerLostError(Exception):
    """A worker's process or node went away without a word."""


def chain_of(error: BaseException) -> list[BaseException]:
    """An exception with everything that it wraps: Ray has names of its own for causes."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop(0)
        if current is None or current in found:
            continue
        found.append(current)
        waiting += [current.__cause__, getattr(current, "cause", None), getattr(current, "controller_failure", None)]
        waiting += list((getattr(current, "worker_failures", None) or {}).values())
    return found


def cause_of(failures: Mapping[int, BaseException]) -> BaseException:
    """The failure, by rank, that the others follow from.

    A rank that raised says why; where one was lost, the others only noticed that it no longer answers.
    """
    first, rank = min((_distance(error), rank) for rank, error in failures.items())
    error = failures[rank]
    return _lost(rank, error) if first == _distance_of_lost() else error


def _distance(error: BaseException) -> int:
    """How far from the cause a rank's error is, from what users can act on to what only follows."""
    chain = chain_of(error)
    if any(isinstance(link, CoreError) and not isinstance(link, StorageError) for link in chain):
        return 0
    names = {kind.__name__ for link in chain for kind in type(link).__mro__}
    if names.intersection(LOST):
        return _distance_of_lost()
    if names.intersection(COLLECTIVE_TYPES) or any(GLOO.search(str(link)) for link in chain):
        return 3
    return 1


def _distance_of_lost() -> int:
    return 2


def _lost(rank: int, error: BaseException) -> WorkerLostError:
    failure = getattr(error, "health_check_failure", error)
    reason = re.search(r"because (its (?:worker process|node) has died)", str(failure))
    return WorkerLostError(f"worker {rank} was lost: {reason[1] if reason else str(failure).strip().splitlines()[-1]}")
