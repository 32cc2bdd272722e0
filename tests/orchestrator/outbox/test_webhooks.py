"""Jobs announce what became of them; the endpoints of their projects are told, signed as OpenAI's client verifies."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from openai import AsyncOpenAI, InvalidWebhookSignatureError, OpenAI
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from ibllm_core.contract.api.webhooks import EventType
from orchestrator.db.models import Job, OutboxMessage, WebhookEndpoint
from orchestrator.ids import new_id
from orchestrator.outbox.courier import Courier, Undeliverable
from orchestrator.outbox.signing import new_secret
from orchestrator.outbox.webhooks import GIVE_UP, NotDeliveredError, announce, deliver, webhook_courier
from orchestrator.settings import ServiceSettings
from tests.orchestrator.api.tenants import new_project
from tests.orchestrator.outbox.receiver import Received, Receiver, receiving

Sessions = sessionmaker[Session]
Register = Callable[..., str]
SDK = OpenAI(api_key="none")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture
def project(database: str) -> str:
    return new_project(database).project_id


@pytest.fixture
def register(sessions: Sessions, project: str, receiver: Receiver) -> Register:
    """Put an endpoint into the database; its id."""

    def put(path: str = "/hook", **changes: Any) -> str:
        values = {"url": receiver.url(path), "secret": new_secret(), "events": list(EventType), **changes}
        endpoint = WebhookEndpoint(id=new_id("we"), project_id=project, name="test", **values)
        with sessions.begin() as session:
            session.add(endpoint)
        return endpoint.id

    return put


@pytest.fixture
def courier(sessions: Sessions) -> Courier:
    return webhook_courier(sessions, settings(private_urls=True))


def settings(**changes: Any) -> ServiceSettings:
    return ServiceSettings(database_url="none", api_key="none", service_url="none", **changes)


def finish_job(sessions: Sessions, project: str, event_type: EventType = EventType.SUCCEEDED) -> str:
    job = Job(id=new_id("ftjob"), project_id=project, request={})
    with sessions.begin() as session:
        session.add(job)
        announce(session, job, event_type)
    return job.id


def endpoint_of(sessions: Sessions, endpoint_id: str) -> WebhookEndpoint:
    with sessions() as session:
        return session.get_one(WebhookEndpoint, endpoint_id)


def message_of(sessions: Sessions, lane: str) -> OutboxMessage:
    with sessions() as session:
        return session.scalars(select(OutboxMessage).where(OutboxMessage.lane == lane)).one()


def try_now(sessions: Sessions, courier: Courier) -> int:
    """A courier that never met the endpoints, after all waits."""
    with sessions.begin() as session:
        session.execute(update(OutboxMessage).values(next_at=func.now()))
    return courier.run_once()


def test_openais_client_unwraps_what_is_sent(
    sessions: Sessions, project: str, register: Register, receiver: Receiver, courier: Courier
) -> None:
    secret = endpoint_of(sessions, register()).secret
    job_id = finish_job(sessions, project)
    assert courier.run_once() == 1
    [received] = receiver.received
    for event in (SDK.webhooks.unwrap(received.body, received.headers, secret=secret), unwrap_async(received, secret)):
        assert event.type == "fine_tuning.job.succeeded"
        assert (event.data.id, event.object, event.id) == (job_id, "event", received.headers["webhook-id"])
        assert abs(event.created_at - datetime.now(UTC).timestamp()) < 60
    with pytest.raises(InvalidWebhookSignatureError):
        SDK.webhooks.unwrap(received.body + b" ", received.headers, secret=secret)
    with pytest.raises(InvalidWebhookSignatureError):
        SDK.webhooks.unwrap(received.body, received.headers, secret=new_secret())


def unwrap_async(received: Received, secret: str) -> Any:
    async def unwrap() -> Any:
        return AsyncOpenAI(api_key="none").webhooks.unwrap(received.body, received.headers, secret=secret)

    return asyncio.run(unwrap())


def test_a_success_is_noted_and_forgets_the_error(
    sessions: Sessions, project: str, register: Register, courier: Courier
) -> None:
    endpoint_id = register(last_error="was away")
    finish_job(sessions, project)
    courier.run_once()
    endpoint, message = endpoint_of(sessions, endpoint_id), message_of(sessions, endpoint_id)
    assert (endpoint.delivered_at is not None, endpoint.last_error) == (True, None)
    assert (message.done_at is not None, message.last_error) == (True, None)


def test_only_enabled_endpoints_of_the_project_that_want_the_type_are_told(
    sessions: Sessions, project: str, database: str, register: Register
) -> None:
    wanting = register(events=[EventType.PAUSED])
    register(events=[EventType.FAILED])
    register(disabled_at=datetime.now(UTC))
    finish_job(sessions, project, EventType.PAUSED)
    finish_job(sessions, new_project(database).project_id, EventType.PAUSED)
    with sessions() as session:
        assert session.scalars(select(OutboxMessage.lane)).all() == [wanting]


def test_the_announcement_is_part_of_the_change(sessions: Sessions, project: str, register: Register) -> None:
    register()
    with sessions() as session:
        announce(session, Job(id="ftjob-never", project_id=project, request={}), EventType.FAILED)
        session.rollback()
    with sessions() as session:
        assert session.scalar(select(func.count(OutboxMessage.id))) == 0


def test_a_repeated_delivery_has_the_same_id_and_a_fresh_signature(
    sessions: Sessions, project: str, register: Register, receiver: Receiver
) -> None:
    receiver.statuses = [500, 429, 200]
    endpoint_id = register()
    secret = endpoint_of(sessions, endpoint_id).secret
    finish_job(sessions, project)
    for status in (500, 429):
        assert try_now(sessions, webhook_courier(sessions, settings(private_urls=True))) == 1
        told = f"answers with status {status}"
        assert told in str(endpoint_of(sessions, endpoint_id).last_error)
        assert told in str(message_of(sessions, endpoint_id).last_error)
    assert try_now(sessions, webhook_courier(sessions, settings(private_urls=True))) == 1
    events = [SDK.webhooks.unwrap(one.body, one.headers, secret=secret) for one in receiver.received]
    assert len({event.id for event in events}) == len({one.headers["webhook-id"] for one in receiver.received}) == 1
    assert message_of(sessions, endpoint_id).attempts == len(events) == 3


def test_both_secrets_sign_until_the_old_one_ends(
    sessions: Sessions, project: str, register: Register, receiver: Receiver, courier: Courier
) -> None:
    old = new_secret()
    soon, past = (datetime.now(UTC) + timedelta(seconds=sign * 60) for sign in (1, -1))
    for number, until in enumerate((soon, past)):
        register(f"/{number}", old_secret=old, old_secret_until=until)
    finish_job(sessions, project)
    assert courier.run_once() == 2
    [during], [after] = receiver.at("/0"), receiver.at("/1")
    SDK.webhooks.unwrap(during.body, during.headers, secret=old)
    assert len(during.headers["webhook-signature"].split()) == 2
    with pytest.raises(InvalidWebhookSignatureError):
        SDK.webhooks.unwrap(after.body, after.headers, secret=old)


def test_an_endpoint_that_is_gone_is_disabled_and_told_nothing_more(
    sessions: Sessions, project: str, register: Register, receiver: Receiver, courier: Courier
) -> None:
    receiver.statuses = [410]
    endpoint_id = register()
    for _ in range(2):
        finish_job(sessions, project)
    assert courier.run_once() == 2
    endpoint = endpoint_of(sessions, endpoint_id)
    assert endpoint.disabled_at is not None
    assert "status 410: the endpoint is disabled" in str(endpoint.last_error)
    assert len(receiver.received) == 1
    finish_job(sessions, project)
    assert courier.run_once() == 0


def test_redirects_are_not_followed(
    sessions: Sessions, project: str, register: Register, receiver: Receiver, courier: Courier
) -> None:
    receiver.statuses = [302]
    endpoint_id = register()
    finish_job(sessions, project)
    courier.run_once()
    assert [one.path for one in receiver.received] == ["/hook"]
    assert "status 302" in str(endpoint_of(sessions, endpoint_id).last_error)


def test_a_delivery_is_given_up_after_a_day(
    sessions: Sessions, project: str, register: Register, receiver: Receiver
) -> None:
    receiver.statuses = [503]
    endpoint_id = register()
    finish_job(sessions, project)
    payload = message_of(sessions, endpoint_id).payload

    def attempt(age: timedelta) -> None:
        deliver(sessions, payload, allow_private=True, now=lambda: datetime.now(UTC) + age)

    with pytest.raises(NotDeliveredError, match="status 503"):
        attempt(GIVE_UP - timedelta(minutes=1))
    with pytest.raises(Undeliverable, match="status 503"):
        attempt(GIVE_UP + timedelta(minutes=1))
    assert "was given up after 24 hours" in str(endpoint_of(sessions, endpoint_id).last_error)


def test_an_address_that_became_private_is_not_sent_to(
    sessions: Sessions, project: str, register: Register, receiver: Receiver
) -> None:
    endpoint_id = register(url="https://localhost/hook")
    finish_job(sessions, project)
    assert webhook_courier(sessions, settings()).run_once() == 1
    assert receiver.received == []
    assert "not public" in str(endpoint_of(sessions, endpoint_id).last_error)


def test_the_connection_goes_to_the_address_that_was_judged(
    sessions: Sessions, project: str, register: Register, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name service that answers otherwise the second time changes nothing."""
    answers = iter([["127.0.0.1"]])
    monkeypatch.setattr("orchestrator.outbox.sending.lookup", lambda *_: next(answers))
    register(url=f"http://hooks.example:{receiver.port}/hook")
    finish_job(sessions, project)
    assert webhook_courier(sessions, settings(private_urls=True)).run_once() == 1
    assert receiver.received[0].headers["Host"] == f"hooks.example:{receiver.port}"


def test_a_closed_port_is_told_and_tried_again(
    sessions: Sessions, project: str, register: Register, courier: Courier
) -> None:
    endpoint_id = register(url="http://127.0.0.1:1/hook?token=hunter2")
    finish_job(sessions, project)
    courier.run_once()
    message = message_of(sessions, endpoint_id)
    assert message.done_at is None
    assert "cannot be reached" in str(message.last_error)
    assert "hunter2" not in str(message.last_error)


def test_a_deleted_endpoint_is_told_nothing(
    sessions: Sessions, project: str, register: Register, courier: Courier, receiver: Receiver
) -> None:
    endpoint_id = register()
    finish_job(sessions, project)
    with sessions.begin() as session:
        session.delete(session.get_one(WebhookEndpoint, endpoint_id))
    courier.run_once()
    assert message_of(sessions, endpoint_id).last_error == "the endpoint was deleted"
    assert receiver.received == []


def test_an_endpoint_that_does_not_answer_holds_up_no_other(
    sessions: Sessions, project: str, register: Register, courier: Courier, receiver: Receiver
) -> None:
    register("/silent")
    for _ in range(12):  # more than the courier has threads
        finish_job(sessions, project)
    register("/hook")
    finish_job(sessions, project)
    stop = threading.Event()
    thread = threading.Thread(target=courier.run, args=(stop,), daemon=True)
    thread.start()
    assert len(receiver.wait_for(1, "/hook")) == 1
    stop.set()
    receiver.let_go.set()
    thread.join()
    assert len(receiver.at("/silent")) == 1


def test_a_slow_answer_is_a_failure(
    sessions: Sessions,
    project: str,
    register: Register,
    courier: Courier,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("orchestrator.outbox.sending.SEND_SECONDS", 0.2)
    endpoint_id = register("/silent")
    finish_job(sessions, project)
    courier.run_once()
    assert "did not answer within" in str(message_of(sessions, endpoint_id).last_error)
    assert len(receiver.at("/silent")) == 1


def test_secrets_are_256_random_bits() -> None:
    secrets = {new_secret() for _ in range(10)}
    assert len(secrets) == 10
    assert {len(base64.b64decode(secret.removeprefix("whsec_"))) for secret in secrets} == {32}
