"""Webhooks: the endpoints of a project, what they are told, and what became of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from ibllm_core.contract.api.access import Name
from ibllm_core.contract.base import Contract


class EventType(StrEnum):
    """What a job can tell of itself; ``paused`` is ours."""

    SUCCEEDED = "fine_tuning.job.succeeded"
    FAILED = "fine_tuning.job.failed"
    CANCELLED = "fine_tuning.job.cancelled"
    PAUSED = "fine_tuning.job.paused"


Url = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2048)]
EventTypes = Annotated[list[EventType], Field(min_length=1, max_length=len(EventType))]


class WebhookCreate(Contract):
    """An ``https`` address that is to be told of a project's jobs."""

    name: Name
    url: Url
    event_types: EventTypes


class WebhookUpdate(Contract):
    """What is left out stays as it is. Enabling an endpoint forgets its last error."""

    name: Name | None = None
    url: Url | None = None
    event_types: EventTypes | None = None
    enabled: bool | None = None


class WebhookRotate(Contract):
    """Whether the old secret signs too for a day, beside the new one."""

    keep_old_secret_active_for_24_hours: bool = False


class WebhookTest(Contract):
    """Which event to make an example of."""

    event_type: EventType


class ShownWebhook(Contract):
    """An endpoint. ``delivered_at`` is its last success, ``last_error`` what went wrong since."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    name: str
    url: str
    event_types: list[EventType]
    signing_secret_hint: str
    created_at: int
    updated_at: int
    enabled: bool
    delivered_at: int | None
    last_error: str | None


class WebhookWithSecret(ShownWebhook):
    """An endpoint that was just made, or whose secret is new; the secret is shown this once."""

    signing_secret: str


class WebhookTestResult(Contract):
    """What the endpoint answered."""

    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    webhook_endpoint_id: str
    event_type: EventType
    status_code: int
    success: Literal[True] = True


class EventTypeList(Contract):
    """All types that endpoints can ask for."""

    object: Literal["list"] = "list"
    data: list[EventType]


class ShownDelivery(Contract):
    """An event on its way to an endpoint; ``id`` is the header ``webhook-id`` and the event's own."""

    id: str
    object: Literal["webhook_endpoint.delivery"] = "webhook_endpoint.delivery"
    created_at: int
    event_type: EventType
    job_id: str
    status: Literal["pending", "delivered", "failed"]
    attempts: int
    finished_at: int | None
    next_attempt_at: int | None
    last_error: str | None


class JobReference(Contract):
    """The job that an event is about."""

    id: str


class WebhookEvent(Contract):
    """The body that an endpoint is sent."""

    id: str
    object: Literal["event"] = "event"
    created_at: int
    type: EventType
    data: JobReference
