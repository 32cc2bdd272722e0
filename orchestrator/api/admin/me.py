"""``/v1/me``: whose key this is, and what it may do."""

from __future__ import annotations

from fastapi import APIRouter

from ibllm_core.contract.api.access import Me, Named
from orchestrator.api.admin.listing import seconds
from orchestrator.api.admin.rules import Anyone
from orchestrator.api.dependencies import SessionOf
from orchestrator.db.models import ApiKey, Organization, Project, User

router = APIRouter(prefix="/me", tags=["keys"])


@router.get("")
def retrieve(caller: Anyone, session: SessionOf) -> Me:
    """The caller: organisation, project, user, role and scopes; every good key may ask."""
    organization = session.get_one(Organization, caller.organization_id)
    project = session.get(Project, caller.project_id) if caller.project_id else None
    user = session.get_one(User, caller.user_id)
    key = session.get_one(ApiKey, caller.key_id)
    return Me(
        organization=Named(id=organization.id, name=organization.name),
        project=Named(id=project.id, name=project.name) if project else None,
        user=Named(id=user.id, name=user.name),
        key=Named(id=key.id, name=key.name),
        role=caller.role,
        scopes=key.scopes,
        permissions=sorted(caller.permissions),
        expires_at=seconds(key.expires_at),
    )
