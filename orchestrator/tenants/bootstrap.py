"""What an installation begins with: a default organisation and project, and the operator, whose key is a setting."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from orchestrator.db.models import ApiKey, Base, Organization, Project, User
from orchestrator.tenants.keys import hash_of

DEFAULT_ORGANIZATION = "org-default"
DEFAULT_PROJECT = "proj-default"
OPERATOR = "user-operator"
OPERATOR_KEY = "key-operator"


def ensure_operator(session: Session, api_key: str) -> None:
    """Make what is missing, and take over another ``IBLLM_API_KEY``; harmless when done again, or by two at once."""
    made: list[tuple[type[Base], dict[str, Any]]] = [
        (Organization, {"id": DEFAULT_ORGANIZATION, "name": "default"}),
        (Project, {"id": DEFAULT_PROJECT, "organization_id": DEFAULT_ORGANIZATION, "name": "default"}),
        (
            User,
            {
                "id": OPERATOR,
                "organization_id": DEFAULT_ORGANIZATION,
                "name": "operator",
                "is_owner": True,
                "is_operator": True,
            },
        ),
    ]
    for table, values in made:
        session.execute(insert(table).values(**values).on_conflict_do_nothing())
    secret = {"sha256": hash_of(api_key), "hint": "IBLLM_API_KEY", "revoked_at": None}
    key = {
        "id": OPERATOR_KEY,
        "organization_id": DEFAULT_ORGANIZATION,
        "project_id": DEFAULT_PROJECT,
        "user_id": OPERATOR,
        "name": "operator",
        **secret,
    }
    session.execute(insert(ApiKey).values(**key).on_conflict_do_update(index_elements=["id"], set_=secret))
    session.commit()
