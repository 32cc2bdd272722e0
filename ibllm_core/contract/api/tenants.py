"""Organisations, projects and users as the API shows them: OpenAI's objects of administration, with ours beside."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from ibllm_core.contract.api.access import Email, KeySeconds, MemberRole, Name, Role
from ibllm_core.contract.api.keys import NewAdminKey
from ibllm_core.contract.base import Contract

DataPrefix = Annotated[str, StringConstraints(max_length=1024, pattern=r"^(s3://|/)([^\x00]*/)?$")]


class Quotas(Contract):
    """What a project may use; null is no limit."""

    max_gpus: float | None = Field(None, ge=0, le=1e6, description="held at once by all of its jobs")
    gpu_hours_per_month: float | None = Field(None, ge=0, le=1e9, description="of a calendar month, UTC")
    max_queued_jobs: int | None = Field(None, ge=0, le=10**9, description="created, and not running yet")
    max_storage_bytes: int | None = Field(None, ge=0, le=2**60, description="of its files")
    requests_per_minute: int | None = Field(None, ge=1, le=10**6, description="of each process of the API")


class ProjectCreate(Quotas):
    """A new project. Only the operator may give it ``data_prefixes``."""

    name: Name
    data_prefixes: list[DataPrefix] = Field(
        [], max_length=100, description="addresses that jobs may read with the service's own credentials"
    )


class ProjectUpdate(Quotas):
    """What is left out stays as it is; a quota that is null is no limit any more."""

    name: Name | None = None
    data_prefixes: list[DataPrefix] | None = Field(None, max_length=100)


class ShownProject(Quotas):
    """A project with its quotas."""

    id: str
    object: Literal["organization.project"] = "organization.project"
    name: str
    created_at: int
    archived_at: int | None
    status: Literal["active", "archived"]
    data_prefixes: list[str]


class ShownUsage(Contract):
    """What a project uses now, and in this month, beside what it may."""

    object: Literal["organization.project.usage"] = "organization.project.usage"
    project_id: str
    month_start: int
    gpu_hours: float = Field(description="held in this month, by running attempts until now")
    gpus: float
    queued_jobs: int
    storage_bytes: int
    quotas: Quotas


class UserCreate(Contract):
    """A person of the organisation; projects are given afterwards."""

    name: Name
    email: Email
    role: Literal["owner", "reader"] = "reader"


class UserUpdate(Contract):
    """Make a user an owner, or no longer one."""

    role: Literal["owner", "reader"]


class ShownUser(Contract):
    """A user of an organisation; a reader has what projects give."""

    id: str
    object: Literal["organization.user"] = "organization.user"
    name: str
    email: str | None
    role: Literal["owner", "reader"]
    added_at: int
    is_service_account: bool


class MemberCreate(Contract):
    """A user of the organisation, by id or email, and the role. OpenAI's ``owner`` is admin, ``member`` submitter."""

    user_id: Annotated[str, Field(max_length=100)] | None = None
    email: Email | None = None
    role: MemberRole


class MemberUpdate(Contract):
    """Another role in the project."""

    role: MemberRole


class ShownMember(Contract):
    """A user in a project."""

    id: str
    object: Literal["organization.project.user"] = "organization.project.user"
    name: str
    email: str | None
    role: Role
    added_at: int


class ServiceAccountCreate(Contract):
    """A program that acts in a project, with its first key."""

    name: Name
    role: MemberRole = "submitter"
    expires_in_seconds: KeySeconds | None = None


class ServiceAccountKey(Contract):
    """The first key of a service account; ``value`` is shown this once."""

    id: str
    object: Literal["organization.project.service_account.api_key"] = "organization.project.service_account.api_key"
    name: str
    created_at: int
    expires_at: int | None
    value: str


class ShownServiceAccount(Contract):
    """A program in a project."""

    id: str
    object: Literal["organization.project.service_account"] = "organization.project.service_account"
    name: str
    role: Role
    created_at: int


class NewServiceAccount(ShownServiceAccount):
    """A service account that was just made."""

    api_key: ServiceAccountKey


class FirstOwner(Contract):
    """Who will administer a new organisation."""

    name: Name
    email: Email


class OrganizationCreate(Contract):
    """A new organisation with its first owner, who gets a key."""

    name: Name
    owner: FirstOwner


class ShownOrganization(Contract):
    """A customer of the installation."""

    id: str
    object: Literal["organization"] = "organization"
    name: str
    created_at: int


class NewOrganization(ShownOrganization):
    """An organisation that was just made, with its owner's key, which is shown this once."""

    owner: ShownUser
    admin_api_key: NewAdminKey
