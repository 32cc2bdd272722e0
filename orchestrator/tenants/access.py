"""Who may do what: permissions, the roles that have them, and the caller of a request. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ibllm_core.contract.api.access import Permission, Role
from orchestrator.errors import InvalidRequestError, PermissionDeniedError

__all__ = ["GRANTED", "MEMBER_ROLES", "Caller", "Permission", "Role", "permissions_of", "role_of"]

MEMBER_ROLES = (Role.READER, Role.SUBMITTER, Role.ADMIN)
_READER = {
    Permission.FILES_READ,
    Permission.JOBS_READ,
    Permission.MODELS_READ,
    Permission.CLUSTER_READ,
    Permission.PROJECT_READ,
}
_SUBMITTER = _READER | {Permission.FILES_WRITE, Permission.JOBS_WRITE, Permission.MODELS_USE}
_ADMIN = _SUBMITTER | {Permission.MODELS_WRITE, Permission.PROJECT_WRITE}
_OWNER = _ADMIN | {Permission.ORGANIZATION_READ, Permission.ORGANIZATION_WRITE}
GRANTED: dict[Role, frozenset[Permission]] = {
    Role.READER: frozenset(_READER),
    Role.SUBMITTER: frozenset(_SUBMITTER),
    Role.ADMIN: frozenset(_ADMIN),
    Role.OWNER: frozenset(_OWNER),
    Role.OPERATOR: frozenset(Permission),
}
_OF_ORGANIZATION = (Permission.ORGANIZATION_READ, Permission.ORGANIZATION_WRITE, Permission.INSTALLATION)


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Whose key a request shows, and in which project it acts; ``project_id`` None is a key of the organisation."""

    organization_id: str
    project_id: str | None
    user_id: str
    key_id: str
    role: Role
    scopes: frozenset[str] | None
    requests_per_minute: int | None = None
    max_queued_jobs: int | None = None
    address: str = ""
    request_id: str = ""

    @property
    def project(self) -> str:
        """The project of a route that has one; its rule has checked that the caller does."""
        assert self.project_id is not None
        return self.project_id

    @property
    def permissions(self) -> frozenset[Permission]:
        """What role and scopes allow together."""
        return permissions_of(self.role, self.scopes)

    def require(self, permission: Permission) -> None:
        """``PermissionDeniedError`` where role or scopes do not allow it."""
        if permission not in GRANTED[self.role]:
            able = next(role for role in Role if permission in GRANTED[role])
            raise PermissionDeniedError(
                f"a {self.role} may not do this, it takes {permission}: ask for the role {able}"
            )
        if self.scopes is not None and permission not in self.scopes:
            raise PermissionDeniedError(
                f"this key has only the scopes {', '.join(sorted(self.scopes))}, and this takes {permission}: "
                "use another key"
            )
        if self.project_id is None and permission not in _OF_ORGANIZATION:
            raise InvalidRequestError(
                "this key belongs to no project: send the header OpenAI-Project, or use a project's key",
                code="project_missing",
            )

    def require_to_give(self, role: Role, scopes: Iterable[str] | None = None) -> None:
        """``PermissionDeniedError`` where the role, or a key of it with these scopes, does what the caller may not."""
        if not GRANTED[role] <= GRANTED[self.role]:
            raise PermissionDeniedError(f"a {self.role} may not do this for a role above, {role}: ask one of them")
        beyond = permissions_of(role, scopes) - self.permissions
        if beyond:
            raise PermissionDeniedError(
                f"this key may not give what it has not, {', '.join(sorted(beyond))}: give less, or use another key"
            )

    def sees_project(self, project_id: str, organization_id: str) -> bool:
        """Owners see all projects of their organisation, the operator all there are, others that of their key."""
        if self.role is Role.OPERATOR:
            return True
        if self.role is Role.OWNER:
            return organization_id == self.organization_id
        return project_id == self.project_id


def permissions_of(role: Role, scopes: Iterable[str] | None) -> frozenset[Permission]:
    """What a key does; ``scopes`` None leaves all that the role allows."""
    return GRANTED[role] if scopes is None else GRANTED[role] & frozenset(Permission(scope) for scope in scopes)


def role_of(member_role: str | None, *, is_owner: bool, is_operator: bool) -> Role | None:
    """A user's role in a project, of which the member's role is None for who is none; owners need not be members."""
    if is_operator:
        return Role.OPERATOR
    if is_owner:
        return Role.OWNER
    return Role(member_role) if member_role else None
