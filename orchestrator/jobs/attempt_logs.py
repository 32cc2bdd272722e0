"""Where the log of an attempt is: with Ray while it runs, in the object store when it has ended."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from ibllm_core.contract import layout
from ibllm_core.errors import ObjectMissingError
from ibllm_core.storage import ObjectStore
from orchestrator.cluster.dashboard import Dashboard
from orchestrator.db.models import Attempt
from orchestrator.errors import ServiceError

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Place:
    """One attempt's log."""

    job_id: str
    run: str
    attempt: int
    attempt_id: str


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A log as it is now, and whether more may come."""

    text: bytes
    is_live: bool


class AttemptLogs:
    """Reads logs, wherever they are."""

    def __init__(self, sessions: sessionmaker[Session], store: ObjectStore, dashboard: Dashboard) -> None:
        self._sessions = sessions
        self._store = store
        self._dashboard = dashboard

    def read(self, place: Place) -> Reading:
        """The log so far; what the scheduler kept last, where Ray does not answer."""
        is_live = self._is_live(place)  # before the text: what came last is read too
        return Reading(text=self._text(place, is_live=is_live), is_live=is_live)

    def _is_live(self, place: Place) -> bool:
        with self._sessions() as session:
            found = session.execute(select(Attempt.finished_at).where(Attempt.id == place.attempt_id)).first()
        return found is not None and found[0] is None

    def _text(self, place: Place, *, is_live: bool) -> bytes:
        if is_live:
            try:
                return self._dashboard.job_log(place.attempt_id).encode(errors="replace")
            except ServiceError as error:
                log.info("the live log of %s is not to be had: %s", place.attempt_id, error)
        try:
            return self._store.get(layout.attempt_log(place.job_id, place.run, place.attempt))
        except ObjectMissingError:
            return b""
