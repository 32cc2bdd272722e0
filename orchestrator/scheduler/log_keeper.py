"""Copies of live logs in the object store: a cluster that is lost takes half a minute of them along, not all."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta

from sqlalchemy import func, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, joinedload, sessionmaker

from orchestrator.db.models import Attempt
from orchestrator.scheduler import effects

KEEP_SECONDS = 30.0
log = logging.getLogger(__name__)


class LogKeeper:
    """Copies the log of each attempt that runs or has just ended, whose last lines came after its last word."""

    def __init__(self, sessions: sessionmaker[Session], world: effects.World) -> None:
        self._sessions = sessions
        self._world = world

    def run(self, stop: threading.Event) -> None:
        """Pass after pass until ``stop``."""
        while not stop.wait(KEEP_SECONDS):
            try:
                self.run_once()
            except SQLAlchemyError as error:
                log.warning("logs are not kept for now: %s", error)

    def run_once(self) -> None:
        """Copy all live logs once."""
        just_now = func.now() - timedelta(seconds=2 * KEEP_SECONDS)
        with self._sessions() as session:
            query = select(Attempt).where(or_(Attempt.finished_at.is_(None), Attempt.finished_at > just_now))
            attempts = session.scalars(query.options(joinedload(Attempt.run))).all()
        for attempt in attempts:
            effects.keep_log(self._world, attempt)
