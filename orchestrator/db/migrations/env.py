"""Alembic's environment: one connection, one transaction."""

from __future__ import annotations

from alembic import context

from orchestrator.db.models import Base
from orchestrator.db.session import connect

engine = connect(context.config.attributes["database_url"])
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
