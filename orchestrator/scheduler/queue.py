"""Open jobs as the policy sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from ibllm_core.contract.job_spec import JobRequest
from ibllm_core.contract.states import RunState
from orchestrator.db.models import Job, Run
from orchestrator.scheduler import policy

ACTIVE = (RunState.STARTING, RunState.RUNNING, RunState.STOPPING)
RANKS = {"low": -1, "normal": 0, "high": 1}


Opened = Sequence[tuple[Job, JobRequest]]
"""Jobs with what they ask for, which is read once a pass."""


def plan_jobs(
    jobs: Opened, nodes: list[policy.Node] | None, now: datetime, quotas: Mapping[str, policy.Quota]
) -> policy.Plan:
    """What the policy says of all runs of some jobs."""
    waiting: list[policy.PendingRun] = []
    active: list[policy.ActiveRun] = []
    for job, request in jobs:
        for run in job.runs:
            gang = policy.Gang.of(request.resources_of(run.kind))
            if run.state in ACTIVE:
                active.append(policy.ActiveRun(project_id=job.project_id, gang=gang))
            elif run.state == RunState.PENDING and not job.pause_requested:
                waiting.append(_waiting(job, run, request, gang))
    return policy.plan(waiting, active, nodes, now, quotas)


def _waiting(job: Job, run: Run, request: JobRequest, gang: policy.Gang) -> policy.PendingRun:
    parent = next((p for p in job.runs if p.position < run.position and p.state != RunState.DONE), None)
    return policy.PendingRun(
        run_id=run.id,
        project_id=job.project_id,
        rank=RANKS[request.priority],
        job_order=(job.created_at, f"{job.id}/{run.position}"),
        gang=gang,
        parents_done=parent is None,
        parent_name=parent.kind if parent else "",
        not_before=run.not_before,
    )
