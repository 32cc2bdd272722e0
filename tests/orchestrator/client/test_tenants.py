"""Projects, members, keys, webhooks, the cluster and the audit log, against the service."""

from __future__ import annotations

import pytest

from ibllm_core.contract.api.access import Permission
from ibllm_core.contract.api.keys import KeyCreate
from ibllm_core.contract.api.tenants import MemberCreate, MemberUpdate, ProjectCreate, ProjectUpdate
from ibllm_core.contract.api.webhooks import EventType, WebhookCreate
from orchestrator.client import AuthenticationError, Client, ConflictError, InvalidRequestError, PermissionDeniedError
from orchestrator.tenants.access import Role
from tests.orchestrator.api.service import Live
from tests.orchestrator.api.tenants import Tenant, new_member, new_project


@pytest.fixture
def owner(database: str) -> Tenant:
    return new_project(database, Role.OWNER)


@pytest.fixture
def owning(live: Live, owner: Tenant) -> Client:
    return Client(live.base_url, owner.key)


def test_me_tells_whose_key_it_is(owning: Client, owner: Tenant) -> None:
    me = owning.me()
    assert (me.user.id, me.key.id, me.role) == (owner.user_id, owner.key_id, Role.OWNER)


def test_a_project_is_made_and_given_quotas(owning: Client) -> None:
    made = owning.projects.create(ProjectCreate(name="vision", data_prefixes=[]))
    owning.projects.update(made.id, ProjectUpdate(max_gpus=8, max_queued_jobs=5))
    changed = owning.projects.update(made.id, ProjectUpdate(max_queued_jobs=None))
    assert (changed.name, changed.max_gpus, changed.max_queued_jobs) == ("vision", 8, None)
    assert owning.projects.usage(made.id).quotas.max_gpus == 8
    assert owning.projects.retrieve(made.id) == changed
    assert next(owning.projects.list()).id == made.id


def test_the_project_is_chosen_beside_the_key(live: Live, owning: Client, owner: Tenant) -> None:
    other = owning.projects.create(ProjectCreate(name="other", data_prefixes=[]))
    with Client(live.base_url, owner.key, project=other.id) as client:
        named = client.me().project
    assert named is not None and named.id == other.id


def test_members_come_change_and_go(owning: Client, owner: Tenant, database: str) -> None:
    member = new_member(database, owner.project_id, Role.READER, organization_id=owner.organization_id)
    other = owning.projects.create(ProjectCreate(name="other", data_prefixes=[]))
    added = owning.members.add(other.id, MemberCreate(user_id=member.user_id, role="reader"))
    assert (added.id, added.role) == (member.user_id, Role.READER)
    assert owning.members.update(other.id, member.user_id, MemberUpdate(role="admin")).role == Role.ADMIN
    assert [one.id for one in owning.members.list(other.id)] == [member.user_id]
    assert owning.members.remove(other.id, member.user_id).deleted
    assert list(owning.members.list(other.id)) == []


def test_keys_are_made_rotated_and_revoked(live: Live, owning: Client, owner: Tenant) -> None:
    made = owning.keys.create(owner.project_id, KeyCreate(name="ci", scopes=[Permission.JOBS_READ]))
    with Client(live.base_url, made.value) as limited:
        assert list(limited.jobs.list()) == []
        with pytest.raises(PermissionDeniedError):
            limited.cluster()
    new = owning.keys.rotate(owner.project_id, made.id, grace_seconds=60)
    assert Client(live.base_url, new.value).me().scopes == ["jobs:read"]
    assert {key.id for key in owning.keys.list(owner.project_id)} == {made.id, new.id, owner.key_id}
    assert owning.keys.revoke(owner.project_id, new.id).deleted
    with pytest.raises(AuthenticationError, match="was revoked"):
        Client(live.base_url, new.value).me()
    with pytest.raises(ConflictError, match="the key that asks"):
        owning.keys.revoke(owner.project_id, owner.key_id)


def test_webhooks_are_made_and_deleted(owning: Client) -> None:
    url = "https://93.184.216.34/hook"  # a public address, to which nothing is sent here
    made = owning.webhooks.create(WebhookCreate(name="mine", url=url, event_types=[EventType.FAILED]))
    assert made.signing_secret.startswith("whsec_")
    assert [one.id for one in owning.webhooks.list()] == [made.id]
    assert list(owning.webhooks.deliveries(made.id)) == []
    assert owning.webhooks.delete(made.id).deleted
    with pytest.raises(InvalidRequestError) as refused:
        owning.webhooks.create(WebhookCreate(name="inside", url="https://127.0.0.1/", event_types=[EventType.FAILED]))
    assert refused.value.param == "url"


def test_deeds_are_in_the_audit_log(owning: Client) -> None:
    made = owning.projects.create(ProjectCreate(name="watched", data_prefixes=[]))
    [entry] = owning.audit_log(event_types=["project.created"], resource_ids=[made.id])
    details = entry.model_dump(mode="json")["project.created"]
    assert (entry.target, details["data"]["name"]) == (made.id, "watched")


def test_the_cluster_is_shown(client: Client) -> None:
    assert client.cluster().reachable is False
