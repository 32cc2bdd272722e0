"""The audit log: who did what to which thing, in the transaction of the deed."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from orchestrator.db.models import AuditEntry
from orchestrator.db.statements import insert_rows
from orchestrator.ids import new_id
from orchestrator.tenants.access import Caller


def record(session: Session, caller: Caller, action: str, target: str, **details: Any) -> None:
    """Add an entry; ``action`` reads ``thing.deed``, such as ``job.created``. Details hold no secrets."""
    entry = {
        "id": new_id("audit"),
        "organization_id": caller.organization_id,
        "project_id": caller.project_id,
        "user_id": caller.user_id,
        "key_id": caller.key_id,
        "action": action,
        "target": target,
        "request_id": caller.request_id,
        "address": caller.address,
        "details": details,
    }
    insert_rows(session, AuditEntry, [entry])
