"""``/v1/organization/projects``: create, list, retrieve, update with their quotas, archive; what they use."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter
from sqlalchemy import select

from ibllm_core.contract.api.common import Page
from ibllm_core.contract.api.tenants import ProjectCreate, ProjectUpdate, Quotas, ShownProject, ShownUsage
from ibllm_core.contract.states import FINAL_STATUSES
from orchestrator.api.admin.listing import After, Limit, rows_after, seconds
from orchestrator.api.admin.rules import (
    InProjectOwner,
    InProjectReader,
    OrganizationReader,
    OrganizationWriter,
    open_project_of,
    project_of,
)
from orchestrator.api.dependencies import SessionOf
from orchestrator.api.pages import page
from orchestrator.db.models import Job, Project
from orchestrator.errors import ConflictError, PermissionDeniedError
from orchestrator.ids import new_id
from orchestrator.tenants.access import Caller, Permission
from orchestrator.tenants.audit import record
from orchestrator.tenants.bootstrap import DEFAULT_PROJECT
from orchestrator.tenants.usage import usage_of

router = APIRouter(prefix="/organization/projects", tags=["projects"])


@router.post("")
def create(body: ProjectCreate, caller: OrganizationWriter, session: SessionOf) -> ShownProject:
    """Make a project; members and keys are given afterwards."""
    if body.data_prefixes:
        _require_operator(caller)
    project = Project(id=new_id("proj"), organization_id=caller.organization_id, **body.model_dump())
    session.add(project)
    record(session, caller, "project.created", project.id, **body.model_dump())
    session.commit()
    return shown(project)


@router.get("")
def list_projects(
    caller: OrganizationReader,
    session: SessionOf,
    after: After = None,
    limit: Limit = 20,
    include_archived: bool = False,
) -> Page[ShownProject]:
    """Projects of the organisation, newest first."""
    rows = rows_after(
        session,
        select(Project).where(Project.organization_id == caller.organization_id),
        (Project.created_at, Project.id),
        *([] if include_archived else [Project.archived_at.is_(None)]),
        after=after,
        limit=limit,
    )
    return page(rows, limit, lambda row: shown(row.Project))


@router.get("/{project_id}")
def retrieve(caller: InProjectReader, session: SessionOf) -> ShownProject:
    """One project."""
    return shown(project_of(session, caller))


@router.post("/{project_id}")
def update(body: ProjectUpdate, caller: InProjectOwner, session: SessionOf) -> ShownProject:
    """Change a project's name and quotas."""
    project = open_project_of(session, caller)
    changes = {name: value for name, value in body.model_dump(exclude_unset=True).items() if _is_change(name, value)}
    if changes.get("data_prefixes", project.data_prefixes) != project.data_prefixes:
        _require_operator(caller)
    for name, value in changes.items():
        setattr(project, name, value)
    record(session, caller, "project.updated", project.id, **changes)
    session.commit()
    return shown(project)


@router.post("/{project_id}/archive")
def archive(caller: InProjectOwner, session: SessionOf) -> ShownProject:
    """Retire a project: its keys work no more, what it owns stays. There is no way back."""
    project = open_project_of(session, caller)
    if project.id == DEFAULT_PROJECT:
        raise ConflictError("the operator's own key belongs to this project: it cannot be archived", param="project_id")
    open_job = session.scalar(
        select(Job.id).where(Job.project_id == project.id, Job.status.not_in(FINAL_STATUSES)).limit(1)
    )
    if open_job is not None:
        raise ConflictError(f"the job {open_job} of this project has not ended: cancel it first", param="project_id")
    project.archived_at = datetime.now(UTC)
    record(session, caller, "project.archived", project.id)
    session.commit()
    return shown(project)


@router.get("/{project_id}/usage")
def usage(caller: InProjectReader, session: SessionOf) -> ShownUsage:
    """GPU-hours of this month, GPUs held now, queued jobs and storage, beside the quotas."""
    project = project_of(session, caller)
    used = usage_of(session, project.id)
    return ShownUsage(
        project_id=project.id,
        month_start=int(used.month_start.timestamp()),
        gpu_hours=round(used.gpu_hours, 4),
        gpus=used.gpus,
        queued_jobs=used.queued_jobs,
        storage_bytes=used.storage_bytes,
        quotas=_quotas(project),
    )


def shown(project: Project) -> ShownProject:
    """OpenAI's project object, with the quotas beside it."""
    return ShownProject(
        id=project.id,
        name=project.name,
        created_at=int(project.created_at.timestamp()),
        archived_at=seconds(project.archived_at),
        status="active" if project.archived_at is None else "archived",
        data_prefixes=project.data_prefixes,
        **_quotas(project).model_dump(),
    )


def _quotas(project: Project) -> Quotas:
    return Quotas(**{name: getattr(project, name) for name in Quotas.model_fields})


def _is_change(name: str, value: object) -> bool:
    """A null is no limit for a quota, and no change for what cannot be null."""
    return value is not None or name in Quotas.model_fields


def _require_operator(caller: Caller) -> None:
    if Permission.INSTALLATION not in caller.permissions:
        raise PermissionDeniedError(
            "data_prefixes are read with the service's own credentials: only the operator may change them",
            param="data_prefixes",
        )
