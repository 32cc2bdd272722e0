"""What MLflow has of runs and jobs, and how far each rank of an attempt is."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    closed_at = sa.DateTime(timezone=True)
    op.add_column("runs", sa.Column("tracked_parts", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("tracking_closed_at", closed_at, nullable=True))
    op.add_column("jobs", sa.Column("tracking_closed_at", closed_at, nullable=True))
    op.add_column(
        "attempts",
        sa.Column("ranks", postgresql.JSONB(astext_type=sa.Text()), nullable=False, server_default=sa.text("'{}'")),
    )
    # Jobs that succeeded were registered before they did; their runs may have been left open, and are closed again.
    op.execute("UPDATE jobs SET tracking_closed_at = finished_at WHERE status = 'succeeded'")


def downgrade() -> None:
    op.drop_column("attempts", "ranks")
    op.drop_column("jobs", "tracking_closed_at")
    op.drop_column("runs", "tracking_closed_at")
    op.drop_column("runs", "tracked_parts")
