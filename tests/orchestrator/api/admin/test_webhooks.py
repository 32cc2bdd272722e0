"""Webhook endpoints, through OpenAI's client where it has the call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.webhooks import WebhookEndpointWithSecret
from sqlalchemy import text

from ibllm_core.contract.api.webhooks import EventType
from orchestrator.api.admin.webhooks import MAX_ENDPOINTS
from orchestrator.db.models import Job, WebhookEndpoint
from orchestrator.db.session import connect, session_factory
from orchestrator.ids import new_id
from orchestrator.outbox.webhooks import announce, webhook_courier
from tests.orchestrator.api.service import Live, Service, error_of
from tests.orchestrator.api.tenants import Tenant
from tests.orchestrator.outbox.receiver import Receiver, receiving

ENDPOINTS = "/v1/webhook_endpoints"
PRIVATE = [
    "https://127.0.0.1/hook",
    "https://localhost/hook",
    "https://10.1.2.3/hook",
    "https://169.254.169.254/latest",
    "https://[::1]/hook",
    "https://[::ffff:10.0.0.1]/hook",
    "https://2130706433/hook",
]
WRONG = ["http://93.184.215.14/hook", "https://93.184.215.14:8443/hook", "ftp://93.184.215.14/", "hook", "https://"]


@pytest.fixture
def receiver(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver in a network that the service trusts."""
    monkeypatch.setattr(service.app.state.settings, "private_urls", True)
    with receiving() as running:
        yield running


@pytest.fixture
def client(live: Live, admin: Tenant) -> OpenAI:
    return live.openai(admin.key, max_retries=0)


def test_an_admin_registers_reads_changes_and_removes_an_endpoint(client: OpenAI, receiver: Receiver) -> None:
    made = client.webhooks.create(
        name="hook", url=receiver.url(), event_types=["fine_tuning.job.succeeded", "fine_tuning.job.failed"]
    )
    assert made.signing_secret.startswith("whsec_")
    seen = client.webhooks.retrieve(made.id)
    assert (seen.object, seen.name, seen.url) == ("webhook_endpoint", "hook", receiver.url())
    assert seen.signing_secret_hint is not None and seen.signing_secret_hint.endswith(made.signing_secret[-4:])
    assert made.signing_secret not in seen.model_dump_json()
    assert seen.model_extra == {"enabled": True, "delivered_at": None, "last_error": None}
    changed = client.webhooks.update(made.id, name="other", event_types=["fine_tuning.job.cancelled"])
    assert (changed.name, changed.url, changed.event_types) == ("other", made.url, ["fine_tuning.job.cancelled"])
    assert client.webhooks.delete(made.id).object == "webhook_endpoint.deleted"
    with pytest.raises(openai.NotFoundError):
        client.webhooks.retrieve(made.id)


def test_endpoints_are_listed_newest_first(client: OpenAI, receiver: Receiver) -> None:
    made = [register(client, receiver).id for _ in range(3)]
    assert [endpoint.id for endpoint in client.webhooks.list(limit=2)] == made[::-1]


def test_a_project_has_so_many_endpoints_and_no_more(client: OpenAI, receiver: Receiver) -> None:
    for _ in range(MAX_ENDPOINTS):
        register(client, receiver)
    with pytest.raises(openai.ConflictError, match="delete one"):
        register(client, receiver)


@pytest.mark.parametrize("url", [*PRIVATE, *WRONG])
def test_addresses_that_are_private_or_not_https_are_refused(service: Service, admin: Tenant, url: str) -> None:
    body = {"name": "sly", "url": url, "event_types": ["fine_tuning.job.failed"]}
    answer = service.http.post(ENDPOINTS, headers=admin.headers, json=body)
    assert error_of(answer)["param"] == "url"


@pytest.mark.parametrize("url", ["https://localhost/", "https://no-such-host.invalid/"])
def test_a_refusal_does_not_tell_where_a_name_leads(service: Service, admin: Tenant, url: str) -> None:
    body = {"name": "sly", "url": url, "event_types": ["fine_tuning.job.failed"]}
    message = error_of(service.http.post(ENDPOINTS, headers=admin.headers, json=body))["message"]
    assert "127.0.0.1" not in message
    assert "::1" not in message


def test_an_endpoint_does_not_move_to_a_private_address(
    service: Service, client: OpenAI, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = register(client, receiver)
    monkeypatch.setattr(service.app.state.settings, "private_urls", False)
    with pytest.raises(openai.BadRequestError, match="not public"):
        client.webhooks.update(made.id, url="https://localhost/hook")
    with pytest.raises(openai.BadRequestError) as caught:
        client.webhooks.test(made.id, event_type="fine_tuning.job.failed")
    assert caught.value.code == "endpoint_unreachable"
    assert receiver.received == []


def test_a_test_sends_a_signed_example_and_tells_the_answer(client: OpenAI, receiver: Receiver) -> None:
    receiver.statuses = [204, 500]
    made = register(client, receiver)
    results = [client.webhooks.test(made.id, event_type="fine_tuning.job.failed").status_code for _ in range(2)]
    assert results == [204, 500]
    received = receiver.received[0]
    event = client.webhooks.unwrap(received.body, received.headers, secret=made.signing_secret)
    assert event.type == "fine_tuning.job.failed"


def test_a_rotated_secret_keeps_the_old_one_where_that_is_asked(client: OpenAI, receiver: Receiver) -> None:
    made = register(client, receiver)
    kept = client.webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
    lost = client.webhooks.rotate_secret(made.id)
    assert len({made.signing_secret, kept.signing_secret, lost.signing_secret}) == 3
    client.webhooks.test(made.id, event_type="fine_tuning.job.failed")
    kept = client.webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
    client.webhooks.test(made.id, event_type="fine_tuning.job.failed")
    first, second = receiver.received
    client.webhooks.verify_signature(first.body, first.headers, secret=lost.signing_secret)
    assert len(first.headers["webhook-signature"].split()) == 1
    for secret in (kept.signing_secret, lost.signing_secret):
        client.webhooks.verify_signature(second.body, second.headers, secret=secret)


def test_deliveries_are_shown_with_what_became_of_them(
    service: Service, database: str, client: OpenAI, admin: Tenant, receiver: Receiver
) -> None:
    receiver.statuses = [200, 410]
    made = register(client, receiver)
    client.webhooks.update(made.id, extra_body={"event_types": list(EventType)})
    sessions = session_factory(connect(database))
    jobs = [Job(id=new_id("ftjob"), project_id=admin.project_id, request={}) for _ in range(2)]
    courier = webhook_courier(sessions, service.app.state.settings)
    for job in jobs:
        with sessions.begin() as session:
            session.add(job)
            announce(session, job, EventType.PAUSED)
        courier.run_once()
    with sessions.begin() as session:
        session.get_one(WebhookEndpoint, made.id).disabled_at = None
        session.flush()
        announce(session, jobs[0], EventType.FAILED)

    def page(**query: Any) -> list[dict[str, Any]]:
        answer = service.http.get(f"{ENDPOINTS}/{made.id}/deliveries", headers=admin.headers, params=query)
        return list(answer.json()["data"])

    pending, failed, delivered = page()
    assert [one["status"] for one in (pending, failed, delivered)] == ["pending", "failed", "delivered"]
    assert [one["attempts"] for one in (pending, failed, delivered)] == [0, 1, 1]
    assert (delivered["job_id"], delivered["event_type"]) == (jobs[0].id, "fine_tuning.job.paused")
    assert "status 410" in failed["last_error"]
    assert page(limit=1, after=pending["id"]) == [failed]


def test_an_endpoint_is_disabled_and_enabled(service: Service, client: OpenAI, receiver: Receiver) -> None:
    made = register(client, receiver)
    off = client.webhooks.update(made.id, extra_body={"enabled": False})
    on = client.webhooks.update(made.id, extra_body={"enabled": True})
    assert [seen.model_extra and seen.model_extra["enabled"] for seen in (off, on)] == [False, True]


def test_an_unchanged_update_does_not_advance_the_time_of_the_last_change(
    database: str, client: OpenAI, receiver: Receiver
) -> None:
    made = register(client, receiver)
    with session_factory(connect(database)).begin() as session:
        session.execute(text("UPDATE webhook_endpoints SET updated_at = to_timestamp(1000)"))
    assert client.webhooks.update(made.id, name=made.name).updated_at == 1000
    assert client.webhooks.update(made.id, name="new").updated_at != 1000


def test_the_types_of_events_are_told(client: OpenAI) -> None:
    assert client.webhooks.event_types.list().data == [str(event_type) for event_type in EventType]


@pytest.mark.parametrize("event_types", [[], ["batch.completed"]])
def test_only_events_of_jobs_can_be_asked_for(service: Service, admin: Tenant, event_types: list[str]) -> None:
    body = {"name": "x", "url": "https://93.184.215.14/", "event_types": event_types}
    answer = service.http.post(ENDPOINTS, headers=admin.headers, json=body)
    assert str(error_of(answer)["param"]).startswith("event_types")


def register(client: OpenAI, receiver: Receiver) -> WebhookEndpointWithSecret:
    return client.webhooks.create(name="hook", url=receiver.url(), event_types=["fine_tuning.job.failed"])
