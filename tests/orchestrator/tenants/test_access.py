"""Who may do, see and give what; pure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import InvalidRequestError, PermissionDeniedError
from orchestrator.tenants.access import GRANTED, Caller, Permission, Role, permissions_of, role_of

ROLES = st.sampled_from(list(Role))
SCOPES = st.none() | st.frozensets(st.sampled_from([str(permission) for permission in Permission]))


def caller(role: Role, scopes: frozenset[str] | None = None, project_id: str | None = "proj-1") -> Caller:
    return Caller(
        organization_id="org-1", project_id=project_id, user_id="user-1", key_id="key-1", role=role, scopes=scopes
    )


@given(role=ROLES, scopes=SCOPES, permission=st.sampled_from(list(Permission)))
def test_it_takes_the_role_and_the_scope(role: Role, scopes: frozenset[str] | None, permission: Permission) -> None:
    allowed = permission in GRANTED[role] and (scopes is None or permission in scopes)
    try:
        caller(role, scopes).require(permission)
    except PermissionDeniedError as error:
        assert not allowed
        assert permission in error.message
    else:
        assert allowed


@given(giver=ROLES, own=SCOPES, role=ROLES, scopes=SCOPES)
def test_nobody_gives_what_they_may_not_do(
    giver: Role, own: frozenset[str] | None, role: Role, scopes: frozenset[str] | None
) -> None:
    try:
        caller(giver, own).require_to_give(role, scopes)
    except PermissionDeniedError:
        above = not GRANTED[role] <= GRANTED[giver]
        assert above or not permissions_of(role, scopes) <= permissions_of(giver, own)
    else:
        assert permissions_of(role, scopes) <= permissions_of(giver, own)
        assert GRANTED[role] <= GRANTED[giver]


def test_a_refusal_names_the_least_role_that_would_do() -> None:
    with pytest.raises(PermissionDeniedError, match="ask for the role submitter"):
        caller(Role.READER).require(Permission.JOBS_WRITE)
    with pytest.raises(PermissionDeniedError, match="ask for the role admin"):
        caller(Role.SUBMITTER).require(Permission.PROJECT_WRITE)


def test_a_key_without_a_project_is_told_to_name_one() -> None:
    with pytest.raises(InvalidRequestError, match="OpenAI-Project"):
        caller(Role.OWNER, project_id=None).require(Permission.JOBS_READ)
    caller(Role.OWNER, project_id=None).require(Permission.ORGANIZATION_READ)


@pytest.mark.parametrize(
    ("role", "seen"),
    [
        (Role.ADMIN, [True, False, False]),
        (Role.OWNER, [True, True, False]),
        (Role.OPERATOR, [True, True, True]),
    ],
)
def test_projects_are_seen_by_role(role: Role, seen: list[bool]) -> None:
    projects = [("proj-1", "org-1"), ("proj-2", "org-1"), ("proj-3", "org-2")]
    assert [caller(role).sees_project(*project) for project in projects] == seen


def test_the_highest_of_a_users_roles_counts() -> None:
    assert role_of(None, is_owner=False, is_operator=False) is None
    assert role_of("reader", is_owner=False, is_operator=False) is Role.READER
    assert role_of("reader", is_owner=True, is_operator=False) is Role.OWNER
    assert role_of(None, is_owner=True, is_operator=True) is Role.OPERATOR
