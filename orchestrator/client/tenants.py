"""Projects, their members and their keys; for users and service accounts there is OpenAI's own client."""

from __future__ import annotations

from collections.abc import Iterator

from ibllm_core.contract.api.common import Deleted
from ibllm_core.contract.api.keys import KeyCreate, KeyRotate, NewKey, ShownKey
from ibllm_core.contract.api.tenants import (
    MemberCreate,
    MemberUpdate,
    ProjectCreate,
    ProjectUpdate,
    ShownMember,
    ShownProject,
    ShownUsage,
)
from orchestrator.client.transport import Transport, segment

PATH = "/organization/projects"


class Projects:
    """``/v1/organization/projects``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, *, include_archived: bool = False, limit: int | None = None) -> Iterator[ShownProject]:
        """Projects of the organisation, newest first."""
        query = {"include_archived": str(include_archived).lower()}
        return self._transport.pages(ShownProject, PATH, limit=limit, query=query)

    def create(self, project: ProjectCreate) -> ShownProject:
        """Make a project."""
        return self._transport.call(ShownProject, "POST", PATH, body=project)

    def retrieve(self, project_id: str) -> ShownProject:
        """One project with its quotas."""
        return self._transport.call(ShownProject, "GET", _path(project_id))

    def update(self, project_id: str, changes: ProjectUpdate) -> ShownProject:
        """Change what is set in ``changes``."""
        return self._transport.call(ShownProject, "POST", _path(project_id), body=changes, is_repeatable=True)

    def usage(self, project_id: str) -> ShownUsage:
        """What a project uses, beside what it may."""
        return self._transport.call(ShownUsage, "GET", _path(project_id, "usage"))


class Members:
    """``/v1/organization/projects/{project_id}/users``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, project_id: str, *, limit: int | None = None) -> Iterator[ShownMember]:
        """Members of a project, newest first."""
        return self._transport.pages(ShownMember, _path(project_id, "users"), limit=limit)

    def add(self, project_id: str, member: MemberCreate) -> ShownMember:
        """Give a user of the organisation a role."""
        return self._transport.call(ShownMember, "POST", _path(project_id, "users"), body=member)

    def update(self, project_id: str, user_id: str, change: MemberUpdate) -> ShownMember:
        """Give a member another role."""
        path = _path(project_id, "users", user_id)
        return self._transport.call(ShownMember, "POST", path, body=change, is_repeatable=True)

    def remove(self, project_id: str, user_id: str) -> Deleted:
        """End a membership, and revoke the member's keys for the project."""
        return self._transport.call(Deleted, "DELETE", _path(project_id, "users", user_id))


class Keys:
    """``/v1/organization/projects/{project_id}/api_keys``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, project_id: str, *, limit: int | None = None) -> Iterator[ShownKey]:
        """Keys of a project that were not revoked, newest first."""
        return self._transport.pages(ShownKey, _path(project_id, "api_keys"), limit=limit)

    def create(self, project_id: str, key: KeyCreate) -> NewKey:
        """Make a key, whose value is shown this once."""
        return self._transport.call(NewKey, "POST", _path(project_id, "api_keys"), body=key)

    def rotate(self, project_id: str, key_id: str, *, grace_seconds: int = 0) -> NewKey:
        """Make a key's successor; the old one works for the grace time and no longer."""
        body = KeyRotate(grace_seconds=grace_seconds)
        return self._transport.call(NewKey, "POST", _path(project_id, "api_keys", key_id, "rotate"), body=body)

    def revoke(self, project_id: str, key_id: str) -> Deleted:
        """Refuse a key from now on."""
        return self._transport.call(Deleted, "DELETE", _path(project_id, "api_keys", key_id))


def _path(project_id: str, *more: str) -> str:
    return "/".join((PATH, *map(segment, (project_id, *more))))
