"""Organisations and projects own everything; keys, uploads, checkpoints, models, webhooks, outbox, audit log.

What was there before belongs to the default project.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"

PROJECT = "proj-default"
# Jobs could read every bucket and, on one machine, every path, which IBLLM_LOCAL_DATA still guards.
DEFAULTS = """
INSERT INTO organizations (id, name) VALUES ('org-default', 'default');
INSERT INTO projects (id, organization_id, name, data_prefixes)
VALUES ('proj-default', 'org-default', 'default', '["s3://", "/"]')
"""
OWNED = ("files", "jobs", "attempts")
MODELS = """
INSERT INTO models (id, project_id, job_id, created_at, base, encoder, stage, prefix, sha256)
SELECT jobs.fine_tuned_model, jobs.project_id, jobs.id, jobs.finished_at, jobs.request->>'model',
       coalesce(jobs.request->>'encoder', 'imagebind'), 'stage2', runs.outputs->>'adapter',
       runs.outputs->>'adapter_sha256'
FROM jobs JOIN runs ON runs.job_id = jobs.id AND runs.kind = 'stage2'
WHERE jobs.status = 'succeeded' AND jobs.fine_tuned_model IS NOT NULL AND runs.outputs->>'adapter' IS NOT NULL
"""


def text(name: str, *, nullable: bool = False, default: str | None = None) -> Any:
    return sa.Column(name, sa.Text(), nullable=nullable, server_default=default)


def time(name: str, *, nullable: bool = True) -> Any:
    default = None if nullable else sa.text("now()")
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=default)


def number(name: str, *, nullable: bool = False, default: str | None = None) -> Any:
    return sa.Column(name, sa.BigInteger(), nullable=nullable, server_default=default)


def real(name: str, *, nullable: bool = True, default: str | None = None) -> Any:
    return sa.Column(name, sa.Float(), nullable=nullable, server_default=default)


def flag(name: str, default: str | None = None) -> Any:
    return sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.text(default) if default else None)


def json(name: str, *, nullable: bool = False, default: str | None = None) -> Any:
    return sa.Column(name, JSONB(astext_type=sa.Text()), nullable=nullable, server_default=default and sa.text(default))


def of(column: str, table: str, *, cascade: str | None = None) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{table}.id"], ondelete=cascade)


def key(*columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns)


def upgrade() -> None:
    _make_tenants()
    _give_to_default_project()
    _make_uploads()
    _make_results()
    _make_service()


def _make_tenants() -> None:
    op.create_table("organizations", text("id"), time("created_at", nullable=False), text("name"), key("id"))
    op.create_table(
        "projects",
        text("id"),
        text("organization_id"),
        time("created_at", nullable=False),
        time("archived_at"),
        text("name"),
        real("max_gpus"),
        real("gpu_hours_per_month"),
        number("max_queued_jobs", nullable=True),
        number("max_storage_bytes", nullable=True),
        number("requests_per_minute", nullable=True),
        json("data_prefixes", default="'[]'"),
        of("organization_id", "organizations"),
        key("id"),
    )
    op.create_index("projects_of_organization", "projects", ["organization_id", "created_at", "id"])
    op.create_table(
        "users",
        text("id"),
        text("organization_id"),
        time("created_at", nullable=False),
        text("kind"),
        text("name"),
        text("email", nullable=True),
        flag("is_owner"),
        flag("is_operator"),
        of("organization_id", "organizations"),
        key("id"),
    )
    op.create_index("users_by_email", "users", ["organization_id", "email"], unique=True)
    op.create_table(
        "memberships",
        text("project_id"),
        text("user_id"),
        time("added_at", nullable=False),
        text("role"),
        of("project_id", "projects"),
        of("user_id", "users"),
        key("project_id", "user_id"),
    )
    op.create_index("ix_memberships_user_id", "memberships", ["user_id"])
    op.create_table(
        "api_keys",
        text("id"),
        text("organization_id"),
        text("project_id", nullable=True),
        text("user_id"),
        time("created_at", nullable=False),
        text("name"),
        text("sha256"),
        text("hint"),
        json("scopes", nullable=True),
        time("expires_at"),
        time("revoked_at"),
        time("last_used_at"),
        of("organization_id", "organizations"),
        of("project_id", "projects"),
        of("user_id", "users"),
        key("id"),
        sa.UniqueConstraint("sha256"),
    )
    op.create_index("ix_api_keys_organization_id", "api_keys", ["organization_id"])
    op.create_index("ix_api_keys_project_id", "api_keys", ["project_id"])


def _give_to_default_project() -> None:
    op.execute(DEFAULTS)
    for table in OWNED:
        op.add_column(table, text("project_id", default=PROJECT))
        op.alter_column(table, "project_id", server_default=None)
        op.create_foreign_key(f"{table}_project_id_fkey", table, "projects", ["project_id"], ["id"])
    op.alter_column("files", "sha256", nullable=True)
    for column in (
        time("expires_at"),
        time("claimed_at"),
        number("check_tries", default="0"),
        json("count_with", nullable=True),
    ):
        op.add_column("files", column)
    op.create_index("files_of_project", "files", ["project_id", "created_at", "id"])
    op.create_index("files_unchecked", "files", ["created_at"], postgresql_where=sa.text("status = 'uploaded'"))
    op.create_index("files_expiring", "files", ["expires_at"], postgresql_where=sa.text("expires_at IS NOT NULL"))
    for column in (
        text("created_by", nullable=True),
        json("openai_hyperparameters", nullable=True),
        text("request_hash", nullable=True),
        number("retry_count", default="0"),
        json("metadata", default="'{}'"),
        json("parent", nullable=True),
        flag("pause_requested", "false"),
    ):
        op.add_column("jobs", column)
    op.execute("UPDATE jobs SET metadata = coalesce(request->'metadata', '{}')")
    op.drop_constraint("jobs_idempotency_key_key", "jobs")
    op.create_index("jobs_by_idempotency_key", "jobs", ["project_id", "idempotency_key"], unique=True)
    op.create_index("jobs_of_project", "jobs", ["project_id", "created_at", "id"])
    op.create_index("jobs_by_request", "jobs", ["project_id", "request_hash", "created_at"])
    op.create_index(
        "jobs_by_metadata", "jobs", ["metadata"], postgresql_using="gin", postgresql_ops={"metadata": "jsonb_path_ops"}
    )
    op.create_index(
        "jobs_open",
        "jobs",
        ["created_at"],
        postgresql_where=sa.text("status IN ('validating_files', 'queued', 'running')"),
    )
    op.add_column("attempts", real("gpus", nullable=False, default="0"))
    op.add_column("attempts", time("submitted_at"))
    op.execute("UPDATE attempts SET submitted_at = created_at")
    op.create_index("attempts_of_project", "attempts", ["project_id", "created_at"])


def _make_uploads() -> None:
    op.create_table(
        "uploads",
        text("id"),
        text("project_id"),
        time("created_at", nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        number("bytes"),
        text("filename"),
        text("mime_type"),
        text("purpose"),
        text("status"),
        number("file_expires_after", nullable=True),
        json("count_with", nullable=True),
        text("file_id", nullable=True),
        time("cleared_at"),
        of("project_id", "projects"),
        of("file_id", "files", cascade="SET NULL"),
        key("id"),
    )
    op.create_index("uploads_of_project", "uploads", ["project_id", "created_at"])
    op.create_index("uploads_pending", "uploads", ["expires_at"], postgresql_where=sa.text("status = 'pending'"))
    op.create_index(
        "uploads_uncleared",
        "uploads",
        ["created_at"],
        postgresql_where=sa.text("status <> 'pending' AND cleared_at IS NULL"),
    )
    op.create_table(
        "upload_parts",
        text("id"),
        text("upload_id"),
        time("created_at", nullable=False),
        number("bytes"),
        of("upload_id", "uploads", cascade="CASCADE"),
        key("id"),
    )
    op.create_index("ix_upload_parts_upload_id", "upload_parts", ["upload_id"])


def _make_results() -> None:
    op.create_table(
        "checkpoints",
        text("id"),
        text("job_id"),
        text("run_id"),
        time("created_at", nullable=False),
        number("step"),
        text("prefix"),
        json("metrics"),
        text("model"),
        of("job_id", "jobs", cascade="CASCADE"),
        of("run_id", "runs", cascade="CASCADE"),
        key("id"),
        sa.UniqueConstraint("run_id", "step"),
        sa.UniqueConstraint("model"),
    )
    op.create_index("checkpoints_of_job", "checkpoints", ["job_id", "created_at", "id"])
    op.create_table(
        "models",
        text("id"),
        text("project_id"),
        text("job_id"),
        time("created_at", nullable=False),
        time("deleted_at"),
        text("base"),
        text("encoder"),
        text("stage"),
        text("prefix"),
        text("sha256"),
        of("project_id", "projects"),
        of("job_id", "jobs"),
        key("id"),
    )
    op.create_index("models_of_project", "models", ["project_id", "created_at"])
    op.execute(MODELS)
    op.create_table(
        "model_permissions",
        text("id"),
        text("model"),
        text("owner_project_id"),
        text("project_id"),
        time("created_at", nullable=False),
        of("owner_project_id", "projects"),
        of("project_id", "projects"),
        key("id"),
        sa.UniqueConstraint("model", "project_id"),
    )
    op.create_index("ix_model_permissions_project_id", "model_permissions", ["project_id"])


def _make_service() -> None:
    op.create_table(
        "webhook_endpoints",
        text("id"),
        text("project_id"),
        time("created_at", nullable=False),
        time("updated_at", nullable=False),
        text("name"),
        text("url"),
        text("secret"),
        text("old_secret", nullable=True),
        time("old_secret_until"),
        json("events"),
        time("disabled_at"),
        time("delivered_at"),
        text("last_error", nullable=True),
        of("project_id", "projects"),
        key("id"),
    )
    op.create_index("webhook_endpoints_of_project", "webhook_endpoints", ["project_id", "created_at"])
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        time("created_at", nullable=False),
        text("kind"),
        text("lane", nullable=True),
        json("payload"),
        number("attempts", default="0"),
        time("next_at", nullable=False),
        time("done_at"),
        text("last_error", nullable=True),
        key("id"),
    )
    op.create_index("outbox_due", "outbox", ["kind", "next_at"], postgresql_where=sa.text("done_at IS NULL"))
    op.create_index("outbox_done", "outbox", ["done_at"], postgresql_where=sa.text("done_at IS NOT NULL"))
    op.create_index("outbox_of_lane", "outbox", ["lane", "id"], postgresql_where=sa.text("lane IS NOT NULL"))
    op.create_table(
        "audit_log",
        text("id"),
        sa.Column("sequence", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        time("created_at", nullable=False),
        text("organization_id"),
        text("project_id", nullable=True),
        text("user_id"),
        text("key_id"),
        text("action"),
        text("target"),
        text("request_id"),
        text("address"),
        json("details"),
        key("id"),
    )
    op.create_index("audit_log_of_organization", "audit_log", ["organization_id", "sequence"])


def downgrade() -> None:
    for table in ("audit_log", "outbox", "webhook_endpoints", "model_permissions", "models", "checkpoints"):
        op.drop_table(table)
    op.drop_table("upload_parts")
    op.drop_table("uploads")
    op.drop_index("files_unchecked", "files")
    op.drop_index("jobs_open", "jobs")
    op.drop_index("jobs_by_metadata", "jobs")
    op.drop_index("jobs_by_request", "jobs")
    op.drop_index("jobs_by_idempotency_key", "jobs")
    op.create_unique_constraint("jobs_idempotency_key_key", "jobs", ["idempotency_key"])
    for column in (
        "created_by",
        "openai_hyperparameters",
        "request_hash",
        "retry_count",
        "metadata",
        "parent",
        "pause_requested",
    ):
        op.drop_column("jobs", column)
    for column in ("expires_at", "claimed_at", "check_tries", "count_with"):
        op.drop_column("files", column)
    op.execute("UPDATE files SET sha256 = '' WHERE sha256 IS NULL")
    op.alter_column("files", "sha256", nullable=False)
    op.drop_column("attempts", "gpus")
    op.drop_column("attempts", "submitted_at")
    for table in OWNED:
        op.drop_column(table, "project_id")
    for table in ("api_keys", "memberships", "users", "projects", "organizations"):
        op.drop_table(table)
