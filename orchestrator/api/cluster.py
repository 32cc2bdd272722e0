"""``/v1/cluster``: the nodes as the scheduler last saw them, what runs on them and what waits."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends

from orchestrator.api.dependencies import SessionOf, require_key
from orchestrator.db.models import ClusterSnapshot

router = APIRouter(prefix="/cluster", tags=["cluster"], dependencies=[Depends(require_key)])


@router.get("")
def retrieve(session: SessionOf) -> dict[str, Any]:
    """The newest snapshot; ``updated_at`` tells its age, ``reachable`` whether Ray answered then."""
    snapshot = session.get(ClusterSnapshot, 1)
    if snapshot is None:
        return {"object": "cluster", "updated_at": None, "reachable": False, "nodes": [], "running": [], "waiting": []}
    return {"object": "cluster", "updated_at": int(snapshot.updated_at.timestamp()), **snapshot.view}
