"""Tenants for tests, put into the database as the administration's routes would leave them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.db.models import ApiKey, Membership, Organization, Project, User
from orchestrator.db.session import connect, session_factory
from orchestrator.ids import new_id
from orchestrator.tenants.access import MEMBER_ROLES, Role
from orchestrator.tenants.keys import hash_of, hint_of, new_secret


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """A project and a key for it; ``key`` is the secret, ``key_id`` its name."""

    key: str
    key_id: str
    user_id: str
    project_id: str
    organization_id: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}


def new_project(
    database: str,
    role: str = Role.SUBMITTER,
    *,
    organization_id: str | None = None,
    scopes: list[str] | None = None,
    **quotas: Any,
) -> Tenant:
    """A new project, in a new organisation unless one is named, and a user of that role with a key."""
    project_id = new_id("proj")
    with session_factory(connect(database))() as session:
        if organization_id is None:
            organization_id = new_id("org")
            session.add(Organization(id=organization_id, name=organization_id))
            session.flush()
        session.add(Project(id=project_id, organization_id=organization_id, name=project_id, **quotas))
        session.commit()
        session.get_bind().dispose()  # type: ignore[union-attr]
    return new_member(database, project_id, role, organization_id=organization_id, scopes=scopes)


def new_member(
    database: str, project_id: str, role: str, *, organization_id: str, scopes: list[str] | None = None
) -> Tenant:
    """A user with a key for a project that is there; owners and the operator need no membership."""
    secret, user_id, key_id = new_secret(), new_id("user"), new_id("key")
    with session_factory(connect(database))() as session:
        is_operator, is_owner = role == Role.OPERATOR, role in (Role.OWNER, Role.OPERATOR)
        session.add(
            User(id=user_id, organization_id=organization_id, name=role, is_owner=is_owner, is_operator=is_operator)
        )
        session.flush()
        if role in MEMBER_ROLES:
            session.add(Membership(project_id=project_id, user_id=user_id, role=role))
        session.add(
            ApiKey(
                id=key_id,
                organization_id=organization_id,
                project_id=project_id,
                user_id=user_id,
                name=role,
                sha256=hash_of(secret),
                hint=hint_of(secret),
                scopes=scopes,
            )
        )
        session.commit()
        session.get_bind().dispose()  # type: ignore[union-attr]
    return Tenant(key=secret, key_id=key_id, user_id=user_id, project_id=project_id, organization_id=organization_id)
