"""What the outbox takes: effects that are asked for in the transaction of the change that they follow from."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy.orm import Session

from orchestrator.db.models import OutboxMessage


class Kind(StrEnum):
    """Who does it."""

    SUBMIT = "submit"
    WEBHOOK = "webhook"


def add(session: Session, kind: Kind, payload: dict[str, Any], *, lane: str | None = None) -> None:
    """Ask for an effect, in the caller's transaction; those of one lane are done one at a time."""
    session.add(OutboxMessage(kind=kind, lane=lane, payload=payload))
