"""docs/tenants.md against the code."""

from __future__ import annotations

from ibllm_core.contract.api.access import Permission, Role
from ibllm_core.contract.api.tenants import Quotas
from ibllm_core.contract.api.webhooks import EventType
from orchestrator.api.admin.webhooks import MAX_ENDPOINTS
from orchestrator.outbox.webhooks import BACKOFF, GIVE_UP, NUM_THREADS
from orchestrator.tenants.access import GRANTED
from tests.docs.pages import read, table

PAGE = read("tenants.md")


def test_the_table_of_roles_is_what_they_are_granted() -> None:
    rows = [[cell.strip() for cell in row] for row in table(PAGE, "permission")]
    assert [row[0] for row in rows] == [f"`{permission}`" for permission in Permission]
    for permission, row in zip(Permission, rows, strict=True):
        granted = ["yes" if permission in GRANTED[role] else "no" for role in Role]
        assert row[1:] == granted, permission


def test_every_quota_is_told() -> None:
    assert [row[0] for row in table(PAGE, "quota")] == [f"`{name}`" for name in Quotas.model_fields]


def test_numbers_and_events_of_webhooks_are_those_of_the_code() -> None:
    assert f"at most {MAX_ENDPOINTS} endpoints" in PAGE
    assert (NUM_THREADS, BACKOFF.first, BACKOFF.longest, GIVE_UP.total_seconds()) == (8, 5, 3600, 24 * 3600)
    for event_type in EventType:
        assert f".{event_type.rpartition('.')[2]}`" in PAGE
