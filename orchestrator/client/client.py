"""The client of the service, for all that OpenAI's own client does not know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from ibllm_core.contract.api.access import Me
from ibllm_core.contract.api.audit import ShownAuditEntry
from ibllm_core.contract.api.cluster import Cluster
from orchestrator.client.chat import Chat
from orchestrator.client.files import Files
from orchestrator.client.jobs import Jobs
from orchestrator.client.models import Models
from orchestrator.client.tenants import Keys, Members, Projects
from orchestrator.client.transport import Transport
from orchestrator.client.webhooks import Webhooks


class Client:
    """One service as one key sees it. Safe for threads; close it, or use it in a ``with`` statement.

    Every method returns models of ``ibllm_core.contract`` and raises a ``ClientError``. What may help is tried again.
    """

    def __init__(
        self, base_url: str, api_key: str, *, project: str | None = None, timeout: float = 60.0, max_retries: int = 2
    ) -> None:
        """``base_url`` may end with ``/v1``; ``project`` is for keys of more than one; ``timeout`` in seconds."""
        self._transport = Transport(base_url, api_key, project=project, timeout=timeout, max_retries=max_retries)
        self.jobs = Jobs(self._transport)
        self.files = Files(self._transport)
        self.models = Models(self._transport)
        self.chat = Chat(self._transport)
        self.projects = Projects(self._transport)
        self.members = Members(self._transport)
        self.keys = Keys(self._transport)
        self.webhooks = Webhooks(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    @property
    def url(self) -> str:
        """The address, with ``/v1``."""
        return self._transport.url

    def me(self) -> Me:
        """Whose key this is, and what it may do."""
        return self._transport.call(Me, "GET", "/me")

    def cluster(self) -> Cluster:
        """Nodes, what runs on them, and what waits and why."""
        return self._transport.call(Cluster, "GET", "/cluster")

    def audit_log(
        self, *, event_types: Sequence[str] = (), resource_ids: Sequence[str] = (), limit: int | None = None
    ) -> Iterator[ShownAuditEntry]:
        """Who did what in the organisation, newest first."""
        query = {"event_types[]": list(event_types), "resource_ids[]": list(resource_ids)}
        return self._transport.pages(ShownAuditEntry, "/organization/audit_logs", limit=limit, query=query)
