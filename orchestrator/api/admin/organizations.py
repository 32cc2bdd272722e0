"""``/v1/organizations``: the customers of the installation, for its operator."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter
from sqlalchemy import select

from ibllm_core.contract.api.common import Page
from ibllm_core.contract.api.tenants import NewOrganization, OrganizationCreate, ShownOrganization
from orchestrator.api.admin import admin_keys, users
from orchestrator.api.admin.listing import After, Limit, rows_after
from orchestrator.api.admin.rules import Operator
from orchestrator.api.dependencies import SessionOf
from orchestrator.api.pages import page
from orchestrator.db.models import Organization, User
from orchestrator.errors import NotFoundError
from orchestrator.ids import new_id
from orchestrator.tenants.audit import record
from orchestrator.tenants.keys import new_key

router = APIRouter(prefix="/organizations", tags=["installation"])


@router.post("")
def create(body: OrganizationCreate, caller: Operator, session: SessionOf) -> NewOrganization:
    """Make an organisation with its first owner and the owner's key, whose value is shown this once."""
    organization = Organization(id=new_id("org"), name=body.name)
    session.add(organization)
    session.flush()
    owner = User(
        id=new_id("user"),
        organization_id=organization.id,
        name=body.owner.name,
        email=body.owner.email,
        is_owner=True,
    )
    session.add(owner)
    session.flush()
    key, value = new_key(organization_id=organization.id, project_id=None, user_id=owner.id, name="first")
    session.add(key)
    there = replace(caller, organization_id=organization.id)
    record(session, there, "organization.created", organization.id, name=body.name)
    record(session, there, "user.added", owner.id, role="owner", email=owner.email)
    record(session, there, "api_key.created", key.id, user_id=owner.id)
    session.commit()
    return NewOrganization(
        **shown(organization).model_dump(),
        owner=users.shown(owner),
        admin_api_key=admin_keys.shown_new(key, owner, value),
    )


@router.get("")
def list_organizations(
    caller: Operator, session: SessionOf, after: After = None, limit: Limit = 20
) -> Page[ShownOrganization]:
    """All organisations, newest first."""
    rows = rows_after(
        session, select(Organization), (Organization.created_at, Organization.id), after=after, limit=limit
    )
    return page(rows, limit, lambda row: shown(row.Organization))


@router.get("/{organization_id}")
def retrieve(organization_id: str, caller: Operator, session: SessionOf) -> ShownOrganization:
    """One organisation."""
    organization = session.get(Organization, organization_id)
    if organization is None:
        raise NotFoundError(
            f"there is no organization {organization_id!r}: GET /v1/organizations lists them", param="organization_id"
        )
    return shown(organization)


def shown(organization: Organization) -> ShownOrganization:
    """An organisation by its id and name."""
    return ShownOrganization(
        id=organization.id, name=organization.name, created_at=int(organization.created_at.timestamp())
    )
