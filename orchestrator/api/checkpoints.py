"""A job's checkpoints, and which other projects may use a checkpoint or a model."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from sqlalchemy import select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ibllm_core.contract.api.common import Deleted, Page
from ibllm_core.contract.api.jobs import CheckpointPermission, FineTuningJobCheckpoint, PermissionRequest
from orchestrator.api.dependencies import JobsReader, ModelsReader, ModelsWriter, SessionOf
from orchestrator.api.jobs import find
from orchestrator.api.pages import page
from orchestrator.db.models import Checkpoint, Job, Model, ModelPermission, Project, Run
from orchestrator.errors import InvalidRequestError, NotFoundError
from orchestrator.ids import new_id
from orchestrator.jobs.shown import shown_checkpoint
from orchestrator.tenants import audit
from orchestrator.tenants.access import Caller

router = APIRouter(prefix="/fine_tuning", tags=["checkpoints"])
Cursor = Annotated[str | None, Query(max_length=128)]


@router.get("/jobs/{job_id}/checkpoints", response_model=Page[FineTuningJobCheckpoint])
def list_checkpoints(
    job_id: str,
    caller: JobsReader,
    session: SessionOf,
    after: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
) -> Page[FineTuningJobCheckpoint]:
    """The checkpoints that a job has now, newest first."""
    find(session, caller, job_id)
    query = select(Checkpoint, Run.kind).join(Run, Run.id == Checkpoint.run_id).where(Checkpoint.job_id == job_id)
    query = query.order_by(Checkpoint.created_at.desc(), Checkpoint.id.desc()).limit(limit + 1)
    if after:
        cursor = session.get(Checkpoint, after)
        if cursor is None or cursor.job_id != job_id:
            raise NotFoundError(f"job {job_id} has no checkpoint {after!r}", param="after")
        query = query.where(tuple_(Checkpoint.created_at, Checkpoint.id) < (cursor.created_at, cursor.id))
    return page(session.execute(query).tuples().all(), limit, lambda row: shown_checkpoint(*row))


@router.post("/checkpoints/{model}/permissions", response_model=Page[CheckpointPermission])
def grant(model: str, body: PermissionRequest, caller: ModelsWriter, session: SessionOf) -> Page[CheckpointPermission]:
    """Let other projects of the organisation use a checkpoint or a model of this one; once more changes nothing."""
    _require_own(session, caller, model)
    query = select(Project.id).where(
        Project.id.in_(body.project_ids), Project.organization_id == caller.organization_id
    )
    known = set(session.scalars(query))
    unknown = [project for project in body.project_ids if project not in known]
    if unknown:
        raise InvalidRequestError(f"there is no project {unknown[0]!r} in this organization", param="project_ids")
    for project_id in dict.fromkeys(body.project_ids):
        values = {"model": model, "owner_project_id": caller.project, "project_id": project_id}
        session.execute(insert(ModelPermission).values(id=new_id("cp"), **values).on_conflict_do_nothing())
    audit.record(session, caller, "checkpoint.permission.created", model, project_ids=body.project_ids)
    session.commit()
    granted = select(ModelPermission).where(
        ModelPermission.model == model, ModelPermission.project_id.in_(body.project_ids)
    )
    found = session.scalars(granted.order_by(ModelPermission.created_at.desc())).all()
    return page(found, len(found), _shown)


@router.get("/checkpoints/{model}/permissions", response_model=Page[CheckpointPermission])
def list_permissions(
    model: str,
    caller: ModelsReader,
    session: SessionOf,
    after: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    order: Literal["ascending", "descending"] = "descending",
    project_id: Cursor = None,
) -> Page[CheckpointPermission]:
    """Who may use a checkpoint or a model of this project."""
    _require_own(session, caller, model)
    place = (ModelPermission.created_at, ModelPermission.id)
    is_descending = order == "descending"
    query = select(ModelPermission).where(ModelPermission.model == model)
    query = query.order_by(*(column.desc() if is_descending else column.asc() for column in place))
    if project_id:
        query = query.where(ModelPermission.project_id == project_id)
    if after:
        cursor = _find(session, model, after, param="after")
        seen = tuple_(cursor.created_at, cursor.id)
        query = query.where(tuple_(*place) < seen if is_descending else tuple_(*place) > seen)
    return page(session.scalars(query.limit(limit + 1)).all(), limit, _shown)


@router.delete("/checkpoints/{model}/permissions/{permission_id}", response_model=Deleted)
def revoke(model: str, permission_id: str, caller: ModelsWriter, session: SessionOf) -> Deleted:
    """Take a permission back; what has started from the model goes on."""
    _require_own(session, caller, model)
    session.delete(_find(session, model, permission_id))
    audit.record(session, caller, "checkpoint.permission.deleted", model, permission_id=permission_id)
    session.commit()
    return Deleted(id=permission_id, object="checkpoint.permission")


def _require_own(session: Session, caller: Caller, name: str) -> None:
    model = session.get(Model, name)
    if model is not None and model.deleted_at is None and model.project_id == caller.project:
        return
    owner = select(Job.project_id).join(Checkpoint, Checkpoint.job_id == Job.id).where(Checkpoint.model == name)
    if session.scalar(owner) != caller.project:
        raise NotFoundError(f"this project has no model or checkpoint {name!r}", code="model_not_found")


def _find(session: Session, model: str, permission_id: str, param: str | None = None) -> ModelPermission:
    permission = session.get(ModelPermission, permission_id)
    if permission is None or permission.model != model:
        raise NotFoundError(f"{model} has no permission {permission_id!r}", param=param)
    return permission


def _shown(permission: ModelPermission) -> CheckpointPermission:
    return CheckpointPermission(
        id=permission.id, created_at=int(permission.created_at.timestamp()), project_id=permission.project_id
    )
