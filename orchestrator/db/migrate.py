"""Bring the database to this version's schema: ``python -m orchestrator.db.migrate``."""

from __future__ import annotations

from orchestrator.db.session import migrate
from orchestrator.settings import ServiceSettings

if __name__ == "__main__":
    migrate(ServiceSettings().database_url)
