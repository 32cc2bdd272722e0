"""Who runs next: a pure function of pending runs, running runs and nodes.

First come, first served between jobs; gangs whole or not at all; what can never fit waits without holding up others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ibllm_core.contract.job_spec import Resources
from ibllm_core.contract.states import WaitCode


@dataclass(frozen=True, kw_only=True)
class Node:
    """A live node with what it offers to workers."""

    node_id: str
    cpus: float
    gpus: float


@dataclass(frozen=True, kw_only=True)
class Gang:
    """Equal bundles that must be placed together."""

    workers: int
    cpus: float
    gpus: float

    @staticmethod
    def of(resources: Resources) -> Gang:
        """The gang that a job's resources describe."""
        return Gang(workers=resources.workers, cpus=resources.cpus_per_worker, gpus=resources.gpus_per_worker)

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.workers} workers of {self.cpus:g} CPU{gpus}"


@dataclass(frozen=True, kw_only=True)
class PendingRun:
    """A run that waits; ``job_order`` ranks jobs by their age."""

    run_id: str
    job_order: tuple[datetime, str]
    gang: Gang
    parents_done: bool
    parent_name: str = ""
    not_before: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Why a run waits, as a code and in words."""

    code: WaitCode
    message: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Runs to start now, and the reasons of all others."""

    admitted: tuple[str, ...] = ()
    waiting: dict[str, Wait] = field(default_factory=dict)


def plan(pending: Sequence[PendingRun], active: Sequence[Gang], nodes: Sequence[Node] | None, now: datetime) -> Plan:
    """Admit what fits in the order of the jobs; ``nodes`` None means that the cluster cannot be reached."""
    admitted: list[str] = []
    waiting: dict[str, Wait] = {}
    placed = list(active)
    blocked_by: PendingRun | None = None
    for run in sorted(pending, key=lambda candidate: candidate.job_order):
        if not run.parents_done:
            waiting[run.run_id] = Wait(
                code=WaitCode.PARENT_NOT_DONE, message=f"waits for {run.parent_name} of the same job"
            )
        elif run.not_before and run.not_before > now:
            seconds = (run.not_before - now).total_seconds()
            waiting[run.run_id] = Wait(code=WaitCode.RETRY_BACKOFF, message=f"is tried again in {seconds:.0f} s")
        elif nodes is None:
            waiting[run.run_id] = Wait(
                code=WaitCode.CLUSTER_UNREACHABLE, message="the Ray cluster does not answer; see `ibllm status`"
            )
        elif not fits([run.gang], nodes):
            waiting[run.run_id] = Wait(code=WaitCode.CLUSTER_TOO_SMALL, message=_too_small(run.gang, nodes))
        elif blocked_by is not None:
            waiting[run.run_id] = Wait(
                code=WaitCode.BEHIND_EARLIER_JOBS, message=f"behind an earlier job that needs {blocked_by.gang}"
            )
        elif fits([*placed, run.gang], nodes):
            admitted.append(run.run_id)
            placed.append(run.gang)
        else:
            blocked_by = run
            waiting[run.run_id] = Wait(
                code=WaitCode.CLUSTER_BUSY, message=f"needs {run.gang}; other runs hold the cluster now"
            )
    return Plan(admitted=tuple(admitted), waiting=waiting)


def fits(gangs: Sequence[Gang], nodes: Sequence[Node]) -> bool:
    """Whether all bundles of all gangs find a place; the largest bundles are placed first, on the fullest node."""
    free = [[node.gpus, node.cpus] for node in nodes]
    bundles = sorted(((g.gpus, g.cpus) for g in gangs for _ in range(g.workers)), reverse=True)
    for gpus, cpus in bundles:
        able = [room for room in free if room[0] >= gpus and room[1] >= cpus]
        if not able:
            return False
        room = min(able)
        room[0] -= gpus
        room[1] -= cpus
    return True


def _too_small(gang: Gang, nodes: Sequence[Node]) -> str:
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    return (
        f"needs {gang}, but the cluster's {len(nodes)} node(s) have {cpus:g} CPU and {gpus:g} GPU in all: "
        "add nodes, or cancel the job and ask for fewer resources"
    )
