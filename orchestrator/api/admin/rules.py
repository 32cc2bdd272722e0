"""Who may administer what: rules for routes whose path names a project, and for those of a whole organisation."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Path, Request
from sqlalchemy.orm import Session

from orchestrator.api.dependencies import Allow, SessionOf
from orchestrator.db.models import Project
from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.tenants.access import Caller, Permission


class AllowInProject(Allow):
    """For routes with ``{project_id}``: the caller acts in that project, which is one that the caller sees."""

    def __call__(self, request: Request, session: SessionOf, project_id: str = Path()) -> Caller:
        """Raises ``NotFoundError`` beside what ``Allow`` does."""
        caller = self.known(request, session)
        inside = replace(caller, project_id=project_id)
        if self.permission is not None:
            inside.require(self.permission)
        project = session.get(Project, project_id)
        if project is None or not caller.sees_project(project.id, project.organization_id):
            raise NotFoundError(
                f"there is no project {project_id!r}: GET /v1/organization/projects lists those of an owner's key",
                param="project_id",
            )
        return replace(inside, organization_id=project.organization_id)


class AllowInOrganization(Allow):
    """For routes of the whole organisation, or installation: the project of the caller's key has no part in them."""

    def __call__(self, request: Request, session: SessionOf) -> Caller:
        """Raises what ``Allow`` does."""
        return replace(super().__call__(request, session), project_id=None)


InProjectReader = Annotated[Caller, Depends(AllowInProject(Permission.PROJECT_READ))]
InProjectWriter = Annotated[Caller, Depends(AllowInProject(Permission.PROJECT_WRITE))]
InProjectOwner = Annotated[Caller, Depends(AllowInProject(Permission.ORGANIZATION_WRITE))]
OrganizationReader = Annotated[Caller, Depends(AllowInOrganization(Permission.ORGANIZATION_READ))]
OrganizationWriter = Annotated[Caller, Depends(AllowInOrganization(Permission.ORGANIZATION_WRITE))]
Operator = Annotated[Caller, Depends(AllowInOrganization(Permission.INSTALLATION))]
Anyone = Annotated[Caller, Depends(Allow(None))]


def project_of(session: Session, caller: Caller) -> Project:
    """The project of the path, which the rule has seen."""
    project = session.get(Project, caller.project)
    assert project is not None
    return project


def open_project_of(session: Session, caller: Caller) -> Project:
    """The project of the path, held until the transaction ends; ``ConflictError`` where it is archived."""
    project = session.get(Project, caller.project, with_for_update={"read": True}, populate_existing=True)
    assert project is not None
    if project.archived_at is not None:
        raise ConflictError(f"the project {project.id} is archived: nothing can be added to it", param="project_id")
    return project
