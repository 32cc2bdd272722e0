"""The tables: the one owner of truth."""

from orchestrator.db.models.base import Base
from orchestrator.db.models.files import File, Upload, UploadPart
from orchestrator.db.models.jobs import Attempt, Checkpoint, Event, Job, Model, ModelPermission, Run
from orchestrator.db.models.service import AuditEntry, ClusterSnapshot, OutboxMessage, WebhookEndpoint
from orchestrator.db.models.tenants import ApiKey, Membership, Organization, Project, User

__all__ = [
    "ApiKey",
    "Attempt",
    "AuditEntry",
    "Base",
    "Checkpoint",
    "ClusterSnapshot",
    "Event",
    "File",
    "Job",
    "Membership",
    "Model",
    "ModelPermission",
    "Organization",
    "OutboxMessage",
    "Project",
    "Run",
    "Upload",
    "UploadPart",
    "User",
    "WebhookEndpoint",
]
