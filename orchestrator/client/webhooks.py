"""Who is told of a project's jobs."""

from __future__ import annotations

from collections.abc import Iterator

from ibllm_core.contract.api.common import Deleted
from ibllm_core.contract.api.webhooks import (
    EventType,
    ShownDelivery,
    ShownWebhook,
    WebhookCreate,
    WebhookTest,
    WebhookTestResult,
    WebhookWithSecret,
)
from orchestrator.client.transport import Transport, segment

PATH = "/webhook_endpoints"


class Webhooks:
    """``/v1/webhook_endpoints``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, *, limit: int | None = None) -> Iterator[ShownWebhook]:
        """Endpoints of the project, newest first."""
        return self._transport.pages(ShownWebhook, PATH, limit=limit)

    def create(self, endpoint: WebhookCreate) -> WebhookWithSecret:
        """Register an address; its secret is shown this once."""
        return self._transport.call(WebhookWithSecret, "POST", PATH, body=endpoint)

    def delete(self, endpoint_id: str) -> Deleted:
        """Remove an endpoint."""
        return self._transport.call(Deleted, "DELETE", f"{PATH}/{segment(endpoint_id)}")

    def test(self, endpoint_id: str, event_type: EventType) -> WebhookTestResult:
        """Have an example sent now."""
        body = WebhookTest(event_type=event_type)
        return self._transport.call(WebhookTestResult, "POST", f"{PATH}/{segment(endpoint_id)}/test", body=body)

    def deliveries(self, endpoint_id: str, *, limit: int | None = None) -> Iterator[ShownDelivery]:
        """What an endpoint was sent, or is still to be, newest first."""
        return self._transport.pages(ShownDelivery, f"{PATH}/{segment(endpoint_id)}/deliveries", limit=limit)
