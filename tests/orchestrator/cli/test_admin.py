"""Projects, members, keys, webhooks, files, the cluster and the audit log from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.client import Client
from orchestrator.tenants.access import Role
from tests.ibllm_core.formats.files import chat_row, json_lines
from tests.orchestrator.api.service import Live
from tests.orchestrator.api.tenants import Tenant, new_member, new_project
from tests.orchestrator.cli.conftest import Ibllm


@pytest.fixture(autouse=True)
def owner(database: str, live: Live, monkeypatch: pytest.MonkeyPatch) -> Tenant:
    """An owner of a new organisation, whose key the environment has."""
    owner = new_project(database, Role.OWNER)
    monkeypatch.setenv("IBLLM_URL", live.base_url)
    monkeypatch.setenv("IBLLM_API_KEY", owner.key)
    return owner


def test_a_project_is_made_limited_and_shown(ibllm: Ibllm) -> None:
    project = ibllm("projects", "create", "vision").out.strip()
    assert project in ibllm("projects", "ls").out
    quotas = ("--max-gpus", "8", "--max-storage-bytes", "2e12", "--max-queued-jobs", "5")
    assert ibllm("projects", "quota", project, *quotas).code == 0
    assert ibllm("projects", "quota", project, "--max-queued-jobs", "none").code == 0
    shown = [line.split() for line in ibllm("projects", "show", project).out.splitlines()]
    assert ["GPUs", "at", "once", "0", "8"] in shown
    assert ["storage", "0", "B", "2.0", "TB"] in shown
    assert ["queued", "jobs", "0", "no", "limit"] in shown
    assert ibllm("projects", "show", project, "--json").json["quotas"]["max_gpus"] == 8
    refused = ibllm("projects", "quota", project, "--max-gpus", "-1")
    assert refused.code == 2 and "max_gpus" in refused.err
    assert ibllm("projects", "create", "").code == 2


def test_without_a_name_the_keys_own_project_is_meant(ibllm: Ibllm, owner: Tenant) -> None:
    assert owner.project_id in ibllm("projects", "show").out
    assert ibllm("projects", "quota", "--requests-per-minute", "6000").err.startswith(owner.project_id)


def test_members_come_change_and_go(ibllm: Ibllm, owner: Tenant, database: str) -> None:
    member = new_member(database, owner.project_id, Role.READER, organization_id=owner.organization_id)
    other = ibllm("projects", "create", "other").out.strip()
    here = ("--project", other)
    assert "is submitter now" in ibllm("members", "add", member.user_id, *here).err
    assert "is admin now" in ibllm("members", "role", member.user_id, "admin", *here).err
    assert [one["role"] for one in ibllm("members", "ls", *here, "--json").json["data"]] == ["admin"]
    assert member.user_id in ibllm("members", "ls", *here).out
    assert ibllm("members", "remove", member.user_id, *here).code == 0
    assert ibllm("members", "ls", *here).err == "no members\n"
    assert ibllm("members", "add", "nobody@example.com", *here).code == 5


def test_keys_are_made_rotated_and_revoked(ibllm: Ibllm, live: Live) -> None:
    made = ibllm("keys", "create", "ci", "--scope", "jobs:read", "--days", "30")
    value = made.out.strip()
    assert value.startswith("sk-ib-") and value not in made.err
    with Client(live.base_url, value) as client:
        assert client.me().scopes == ["jobs:read"]
        key_id = client.me().key.id
    assert key_id in made.err and key_id in ibllm("keys", "ls").out and value not in ibllm("keys", "ls").out
    new = ibllm("keys", "rotate", key_id, "--json").json
    assert new["name"] == "ci" and new["value"] != value
    assert ibllm("ls", "--url", live.base_url, "--key", value).code == 4
    assert ibllm("keys", "revoke", new["id"]).code == 0
    assert ibllm("ls", "--url", live.base_url, "--key", new["value"]).code == 4


def test_webhooks_are_made_and_deleted(ibllm: Ibllm) -> None:
    made = ibllm("webhooks", "create", "https://93.184.216.34/hook", "--event", "fine_tuning.job.failed", "--json").json
    assert made["signing_secret"].startswith("whsec_")
    assert "https://93.184.216.34/hook" in ibllm("webhooks", "ls").out
    assert ibllm("webhooks", "delete", made["id"]).code == 0
    inside = ibllm("webhooks", "create", "https://127.0.0.1/")
    assert inside.code == 1 and "127.0.0.1" in inside.err
    assert ibllm("webhooks", "test", made["id"]).code == 5


def test_files_are_uploaded_listed_and_removed(ibllm: Ibllm) -> None:
    Path("rows.jsonl").write_bytes(json_lines([chat_row()] * 3))
    uploaded = ibllm("data", "upload", "rows.jsonl", "--base", "tiny")
    file_id = uploaded.out.strip()
    assert uploaded.code == 0 and "rows: 3" in uploaded.err
    [row] = ibllm("data", "ls").out.splitlines()[1:]
    assert row.split()[:2] == [file_id, "processed"] and "rows.jsonl" in row
    assert ibllm("data", "ls", "--json").json["data"][0]["check"]["tokens"]["total"] > 0
    assert ibllm("data", "rm", file_id).code == 0
    assert ibllm("data", "ls").err == "no files\n"
    Path("bad.jsonl").write_text("{}\n")
    bad = ibllm("data", "upload", "bad.jsonl")
    assert bad.code == 1 and "bad.jsonl (file-" in bad.err and bad.out == ""


def test_deeds_are_told(ibllm: Ibllm, owner: Tenant) -> None:
    project = ibllm("projects", "create", "watched").out.strip()
    [row] = ibllm("audit", "--deed", "project.created", "--target", project).out.splitlines()[1:]
    assert row.split()[2:5] == ["project.created", project, owner.user_id]
    [entry] = ibllm("audit", "--target", project, "--json").json["data"]
    assert entry["project.created"]["data"]["name"] == "watched"


def test_the_cluster_is_shown(ibllm: Ibllm) -> None:
    shown = ibllm("cluster")
    assert shown.code == 0 and "Ray does not answer" in shown.out and "running: none" in shown.out
    assert ibllm("cluster", "--json").json["reachable"] is False
