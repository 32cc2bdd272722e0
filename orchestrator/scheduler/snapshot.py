"""The cluster as ``GET /v1/cluster`` shows it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from ibllm_core.contract.job_spec import JobRequest
from ibllm_core.contract.states import RunKind, RunState
from orchestrator.db.models import ClusterSnapshot, Job, Run
from orchestrator.scheduler import policy
from orchestrator.scheduler.queue import ACTIVE


def save_snapshot(session: Session, jobs: Sequence[Job], nodes: list[policy.Node] | None, now: datetime) -> None:
    """Keep what is seen now; the previous nodes stay while Ray does not answer."""
    snapshot = session.get(ClusterSnapshot, 1) or ClusterSnapshot(id=1, view={"nodes": []})
    old_nodes = snapshot.view.get("nodes", [])
    runs = [(job, run) for job in jobs for run in job.runs]
    snapshot.updated_at = now
    snapshot.view = {
        "reachable": nodes is not None,
        "nodes": old_nodes if nodes is None else [vars(node) for node in nodes],
        "running": [_shown(job, run) for job, run in runs if run.state in ACTIVE],
        "waiting": [
            _shown(job, run)
            for job, run in runs
            if run.state == RunState.PENDING and run.wait_code not in (None, "parent_not_done")
        ],
    }
    session.add(snapshot)


def _shown(job: Job, run: Run) -> dict[str, object]:
    resources = JobRequest.model_validate(job.request).resources_of(run.kind)
    return {
        "project_id": job.project_id,
        "job_id": job.id,
        "run": RunKind(run.kind),
        "state": run.state,
        "needs": str(policy.Gang.of(resources)),
        "nodes": (run.progress or {}).get("nodes", []),
        "why": run.wait_message,
    }
