"""``/v1/cluster``: the nodes as the scheduler last saw them, what runs on them and what waits."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from ibllm_core.contract.api.cluster import Cluster, ClusterRun, ShownNode
from orchestrator.api.dependencies import ClusterReader, SessionOf
from orchestrator.db.models import ClusterSnapshot

router = APIRouter(prefix="/cluster", tags=["cluster"])
NOTHING: dict[str, Any] = {"reachable": False, "nodes": [], "running": [], "waiting": []}


@router.get("", response_model=Cluster)
def retrieve(caller: ClusterReader, session: SessionOf) -> Cluster:
    """The newest snapshot, with the runs of the caller's own project."""
    snapshot = session.get(ClusterSnapshot, 1)
    view = snapshot.view if snapshot else NOTHING
    own = {
        kind: [run for run in view[kind] if run.get("project_id") == caller.project] for kind in ("running", "waiting")
    }
    return Cluster(
        updated_at=int(snapshot.updated_at.timestamp()) if snapshot else None,
        reachable=view["reachable"],
        nodes=[ShownNode.model_validate(node) for node in view["nodes"]],
        running=[_shown(run) for run in own["running"]],
        waiting=[_shown(run) for run in own["waiting"]],
        others_running=len(view["running"]) - len(own["running"]),
        others_waiting=len(view["waiting"]) - len(own["waiting"]),
    )


def _shown(run: dict[str, Any]) -> ClusterRun:
    return ClusterRun.model_validate({key: value for key, value in run.items() if key != "project_id"})
