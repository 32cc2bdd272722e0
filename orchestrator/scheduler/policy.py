"""Who runs next: a pure function of pending runs, running runs, quotas and nodes.

The higher class first, and in a class the older job; gangs whole or not at all; what can never fit, or what its project
may not have now, waits without holding up others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
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

    @property
    def all_gpus(self) -> float:
        """GPUs of all bundles together."""
        return self.workers * self.gpus

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.workers} workers of {self.cpus:g} CPU{gpus}"


@dataclass(frozen=True, kw_only=True)
class PendingRun:
    """A run that waits; ``job_order`` ranks jobs of one class by their age, the higher ``rank`` is before it."""

    run_id: str
    project_id: str
    rank: int = 0
    job_order: tuple[datetime, str]
    gang: Gang
    parents_done: bool
    parent_name: str = ""
    not_before: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class ActiveRun:
    """A run that holds its gang."""

    project_id: str
    gang: Gang


@dataclass(frozen=True, kw_only=True)
class Quota:
    """What a project may hold, and what it has used of its month; None is no limit."""

    max_gpus: float | None = None
    gpu_hours_per_month: float | None = None
    gpu_hours_used: float = 0.0


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


def plan(
    pending: Sequence[PendingRun],
    active: Sequence[ActiveRun],
    nodes: Sequence[Node] | None,
    now: datetime,
    quotas: Mapping[str, Quota] | None = None,
) -> Plan:
    """Admit what fits in the order of the jobs; ``nodes`` None means that the cluster cannot be reached.

    ``quotas`` are those of projects that have one.
    """
    admitted: list[str] = []
    waiting: dict[str, Wait] = {}
    placed = [run.gang for run in active]
    held: defaultdict[str, float] = defaultdict(float)
    for holder in active:
        held[holder.project_id] += holder.gang.all_gpus
    blocked_by: PendingRun | None = None
    for run in sorted(pending, key=lambda candidate: (-candidate.rank, candidate.job_order)):
        over = _over_quota(run, held[run.project_id], (quotas or {}).get(run.project_id))
        if not run.parents_done:
            waiting[run.run_id] = Wait(
                code=WaitCode.PARENT_NOT_DONE, message=f"waits for {run.parent_name} of the same job"
            )
        elif run.not_before and run.not_before > now:
            seconds = (run.not_before - now).total_seconds()
            waiting[run.run_id] = Wait(code=WaitCode.RETRY_BACKOFF, message=f"is tried again in {seconds:.0f} s")
        elif over is not None:
            waiting[run.run_id] = Wait(code=WaitCode.QUOTA, message=over)
        elif nodes is None:
            waiting[run.run_id] = Wait(
                code=WaitCode.CLUSTER_UNREACHABLE, message="the Ray cluster does not answer; see `ibllm status`"
            )
        elif not fits([run.gang], nodes):
            waiting[run.run_id] = Wait(code=WaitCode.CLUSTER_TOO_SMALL, message=_too_small(run.gang, nodes))
        elif blocked_by is not None:
            waiting[run.run_id] = Wait(
                code=WaitCode.BEHIND_EARLIER_JOBS,
                message=f"behind a job of {'a higher class' if blocked_by.rank > run.rank else 'an earlier time'} that "
                f"needs {blocked_by.gang}",
            )
        elif fits([*placed, run.gang], nodes):
            admitted.append(run.run_id)
            placed.append(run.gang)
            held[run.project_id] += run.gang.all_gpus
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


def _over_quota(run: PendingRun, held: float, quota: Quota | None) -> str | None:
    if quota is None or not run.gang.all_gpus:
        return None
    if quota.gpu_hours_per_month is not None and quota.gpu_hours_used >= quota.gpu_hours_per_month:
        return (
            f"the project has used {quota.gpu_hours_used:.1f} of its {quota.gpu_hours_per_month:g} GPU-hours of this "
            "month: it goes on next month, or with a larger quota"
        )
    if quota.max_gpus is not None and held + run.gang.all_gpus > quota.max_gpus:
        return (
            f"the project holds {held:g} of its {quota.max_gpus:g} GPUs, and this run needs {run.gang.all_gpus:g} "
            "more: it waits for the project's other runs, or for a larger quota"
        )
    return None


def _too_small(gang: Gang, nodes: Sequence[Node]) -> str:
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    return (
        f"needs {gang}, but the cluster's {len(nodes)} node(s) have {cpus:g} CPU and {gpus:g} GPU in all: "
        "add nodes, or cancel the job and ask for fewer resources"
    )
