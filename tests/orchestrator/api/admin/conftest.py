"""An organisation of each test's own: an owner and a project with an admin and a reader."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from openai.resources.admin.organization import Organization

from orchestrator.tenants.access import Role
from tests.orchestrator.api.service import Live
from tests.orchestrator.api.tenants import Tenant, new_member, new_project

Administration = Callable[[Tenant], Organization]


@pytest.fixture
def owner(database: str) -> Tenant:
    return new_project(database, Role.OWNER)


@pytest.fixture
def admin(database: str, owner: Tenant) -> Tenant:
    return new_member(database, owner.project_id, Role.ADMIN, organization_id=owner.organization_id)


@pytest.fixture
def reader(database: str, owner: Tenant) -> Tenant:
    return new_member(database, owner.project_id, Role.READER, organization_id=owner.organization_id)


@pytest.fixture
def stranger(database: str) -> Tenant:
    """An owner of another organisation."""
    return new_project(database, Role.OWNER)


@pytest.fixture
def administration(live: Live) -> Administration:
    """OpenAI's client for the administration, with somebody's key."""
    return lambda tenant: live.openai(tenant.key, admin_api_key=tenant.key, max_retries=0).admin.organization
