"""The cluster as ``GET /v1/cluster`` shows it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from ibllm_core.contract.job_spec import JobRequest
from ibllm_core.contract.states import RunKind, RunState
from orchestrator.db.models import ClusterSnapshot, Job, Run
from orchestrator.scheduler import policy
from orchestrator.scheduler.queue import ACTIVE, Opened


def save_snapshot(session: Session, jobs: Opened, nodes: list[policy.Node] | None, now: datetime) -> None:
    """Keep what is seen now; the previous nodes stay while Ray does not answer."""
    snapshot = session.get(ClusterSnapshot, 1) or ClusterSnapshot(id=1, view={"nodes": []})
    old_nodes = snapshot.view.get("nodes", [])
    runs = [(request, job, run) for job, request in jobs for run in job.runs]
    snapshot.updated_at = now
    snapshot.view = {
        "reachable": nodes is not None,
        "nodes": old_nodes if nodes is None else [vars(node) for node in nodes],
        "running": [_shown(request, job, run) for request, job, run in runs if run.state in ACTIVE],
        "waiting": [
            _shown(request, job, run)
            for request, job, run in runs
            if run.state == RunState.PENDING and run.wait_code not in (None, "parent_not_done")
        ],
    }
    session.add(snapshot)


def _shown(request: JobRequest, job: Job, run: Run) -> dict[str, object]:
    return {
        "project_id": job.project_id,
        "job_id": job.id,
        "run": RunKind(run.kind),
        "state": run.state,
        "needs": str(policy.Gang.of(request.resources_of(run.kind))),
        "nodes": (run.progress or {}).get("nodes", []),
        "why": run.wait_message,
    }
