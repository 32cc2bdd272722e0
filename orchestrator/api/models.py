"""``/v1/models``: the finished adapters, each with the job that made it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends
from sqlalchemy import select

from ibllm_core.contract.states import JobStatus, RunKind
from orchestrator.api.dependencies import SessionOf, StoreOf, require_key
from orchestrator.db.models import Job
from orchestrator.errors import NotFoundError

router = APIRouter(prefix="/models", tags=["models"], dependencies=[Depends(require_key)])


@router.get("")
def list_models(session: SessionOf, store: StoreOf) -> dict[str, Any]:
    """All fine-tuned models, newest first."""
    query = select(Job).where(Job.status == JobStatus.SUCCEEDED).order_by(Job.finished_at.desc())
    return {"object": "list", "data": [_shown(job, store) for job in session.scalars(query)], "has_more": False}


@router.get("/{model_id}")
def retrieve(model_id: str, session: SessionOf, store: StoreOf) -> dict[str, Any]:
    """One fine-tuned model."""
    job = session.scalar(select(Job).where(Job.fine_tuned_model == model_id))
    if job is None:
        raise NotFoundError(f"there is no model {model_id!r}: GET /v1/models lists them", code="model_not_found")
    return _shown(job, store)


def _shown(job: Job, store: StoreOf) -> dict[str, Any]:
    stage2 = next(run for run in job.runs if run.kind == RunKind.STAGE2)
    return {
        "id": job.fine_tuned_model,
        "object": "model",
        "created": int(job.finished_at.timestamp()) if job.finished_at else 0,
        "owned_by": "default",
        "job_id": job.id,
        "base": job.request["model"],
        "uri": store.uri(stage2.outputs["adapter"]),
        "sha256": stage2.outputs["adapter_sha256"],
        "mlflow_run_id": stage2.mlflow_run_id,
    }
