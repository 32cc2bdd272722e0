"""One thing of each kind in a project, by its name in paths; put into the database as it would come to be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from ibllm_core.contract.api.webhooks import EventType
from ibllm_core.contract.job_spec import JobRequest, StageRequest
from orchestrator.db.models import (
    ApiKey,
    AuditEntry,
    Base,
    Checkpoint,
    Event,
    File,
    Job,
    Membership,
    Model,
    ModelPermission,
    OutboxMessage,
    Run,
    Upload,
    UploadPart,
    User,
    WebhookEndpoint,
)
from orchestrator.db.session import connect, session_factory
from orchestrator.ids import new_id
from orchestrator.outbox.webhooks import new_event
from tests.orchestrator.api.tenants import Tenant

REQUEST = JobRequest(model="tiny", stages=(StageRequest(stage="stage1", training_file="f"),)).model_dump(mode="json")


def put_things(database: str, tenant: Tenant) -> dict[str, str]:
    """Their ids. ``run`` and ``name`` are no ids, but words that all jobs and models share."""
    project = {"project_id": tenant.project_id}
    with session_factory(connect(database)).begin() as session:
        add = _Adder(session)
        file = add(File, "file", key="none", filename="f", purpose="fine-tune", bytes=1, status="processed", **project)
        upload = add(
            Upload,
            "upload",
            expires_at=datetime.now(UTC) + timedelta(hours=1),
            bytes=1,
            filename="f",
            mime_type="text/plain",
            purpose="fine-tune",
            **project,
        )
        job = add(Job, "ftjob", request=REQUEST, status="succeeded", **project)
        run = add(Run, "run", job_id=job, position=0, kind="stage1", state="done", reason="succeeded")
        model = add(
            Model, "ft:tiny", job_id=job, base="tiny", encoder="e", stage="stage1", prefix="p", sha256="s", **project
        )
        checkpoint = {"job_id": job, "run_id": run, "step": 1, "prefix": "p", "metrics": {}, "model": new_id("ft:step")}
        permission = {"model": model, "owner_project_id": tenant.project_id, "project_id": tenant.project_id}
        user = add(User, "user", organization_id=tenant.organization_id, name="u")
        account = add(User, "svc", organization_id=tenant.organization_id, name="s", kind="service_account")
        session.add_all([Membership(user_id=who, role="reader", **project) for who in (user, account)])
        key = {"organization_id": tenant.organization_id, "user_id": user, "name": "k", "hint": "h"}
        endpoint = add(WebhookEndpoint, "we", name="w", url="https://none/", secret="s", events=[], **project)
        delivery = new_event(EventType.FAILED, job)
        payload = {"endpoint_id": endpoint, "event": delivery.model_dump(mode="json")}
        session.add(OutboxMessage(kind="webhook", lane=endpoint, payload=payload, done_at=datetime.now(UTC)))
        return {
            "organization_id": tenant.organization_id,
            "project_id": tenant.project_id,
            "file_id": file,
            "upload_id": upload,
            "part_id": add(UploadPart, "part", upload_id=upload, bytes=1),
            "job_id": job,
            "event": add(Event, "ftevent", job_id=job, message="m"),
            "checkpoint": add(Checkpoint, "ftckpt", **checkpoint),
            "model": model,
            "model_id": model,
            "permission_id": add(ModelPermission, "cp", **permission),
            "user_id": user,
            "service_account_id": account,
            "api_key_id": add(ApiKey, "key", sha256=new_id("sha"), **key, **project),
            "key_id": add(ApiKey, "key", sha256=new_id("sha"), **key),
            "webhook_endpoint_id": endpoint,
            "delivery": delivery.id,
            "audit_entry": add(
                AuditEntry,
                "audit",
                organization_id=tenant.organization_id,
                user_id=user,
                key_id="k",
                action="thing.done",
                target="t",
                request_id="r",
                address="a",
                **project,
            ),
            "run": "stage1",
            "name": "header.json",
        }


class _Adder:
    def __init__(self, session: Session) -> None:
        self._session = session

    def __call__(self, table: type[Base], kind: str, /, **values: Any) -> str:
        identity = new_id(kind)
        self._session.add(table(id=identity, **values))
        self._session.flush()
        return identity
