"""All routers of the API, one a resource."""

from __future__ import annotations

from orchestrator.api import (
    chat,
    checkpoints,
    cluster,
    events,
    files,
    internal,
    jobs,
    logs,
    model_files,
    models,
    uploads,
)
from orchestrator.api.admin import (
    admin_keys,
    audit_log,
    deliveries,
    keys,
    me,
    members,
    organizations,
    projects,
    service_accounts,
    users,
    webhooks,
)

PUBLIC = (
    files.router,
    uploads.router,
    jobs.router,
    events.router,
    checkpoints.router,
    logs.router,
    model_files.router,  # before models, whose ids take the rest of a path
    models.router,
    chat.router,
    webhooks.router,
    deliveries.router,
    cluster.router,
    me.router,
    organizations.router,
    users.router,
    projects.router,
    members.router,
    service_accounts.router,
    keys.router,
    admin_keys.router,
    audit_log.router,
)
INTERNAL = internal.router
