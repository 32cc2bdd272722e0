"""A scheduler over a real database and object store; Ray and the API are stood in for, and do as they are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session, sessionmaker

from ibllm_core.contract.job_spec import JobRequest
from ibllm_core.contract.run_spec import Outcome
from ibllm_core.contract.states import JobStatus, TerminationReason
from ibllm_core.contract.submission import JobSubmission
from orchestrator.db.models import Attempt, Event, File, Job, OutboxMessage, Run
from orchestrator.errors import ClusterUnreachableError
from orchestrator.jobs.create import Sending, create
from orchestrator.jobs.prepare import Shop
from orchestrator.scheduler import effects
from orchestrator.scheduler.policy import Node
from orchestrator.scheduler.reconciler import Reconciler
from orchestrator.scheduler.views import RayStatus
from orchestrator.tenants.access import Caller, Role
from tests.orchestrator.api.tenants import Tenant, new_project

BASE = "tiny"


class StandInRay:
    """A cluster of one node."""

    def __init__(self) -> None:
        self.jobs: dict[str, RayStatus] = {}
        self.submitted: list[str] = []
        self.is_away = False

    def submit(self, attempt_id: str, spec_key: str) -> None:
        self._answer()
        self.submitted.append(attempt_id)
        self.jobs.setdefault(attempt_id, RayStatus.ALIVE)

    def status(self, attempt_id: str) -> RayStatus:
        self._answer()
        return self.jobs.get(attempt_id, RayStatus.MISSING)

    def stop(self, attempt_id: str) -> None:
        self._answer()
        if attempt_id in self.jobs:
            self.jobs[attempt_id] = RayStatus.ENDED

    def logs(self, attempt_id: str) -> str:
        self._answer()
        return f"log of {attempt_id}\n"

    def nodes(self) -> list[Node]:
        self._answer()
        return [Node(node_id="node", cpus=8, gpus=4)]

    def _answer(self) -> None:
        if self.is_away:
            raise ClusterUnreachableError("Ray is away")


class House:
    """One scheduler with a project of its own; ``end`` ends what the test left open."""

    def __init__(self, database: str, sessions: sessionmaker[Session], shop: Shop) -> None:
        self.database = database
        self.sessions = sessions
        self.shop = shop
        self.ray = StandInRay()
        self.tenant = new_project(database)
        world = effects.World(ray=self.ray, shop=shop, service_url="http://127.0.0.1:9")  # type: ignore[arg-type]
        self.reconciler = Reconciler(sessions, world)

    def passes(self, count: int = 1) -> None:
        for _ in range(count):
            self.reconciler.run_once()

    def file(self, stage: str = "stage1", status: str = "processed", tenant: Tenant | None = None) -> str:
        """A file that was checked, or that still is."""
        check = {"samples": 9, "rows": 9, "bad_rows": 0, "bad_share": 0.0, "first_bad": [], "stage": stage}
        values: dict[str, Any] = {"key": "none", "filename": "x", "purpose": "fine-tune", "bytes": 1, "sha256": "abc"}
        file = File(id=f"file-{datetime.now(UTC).timestamp()}", project_id=(tenant or self.tenant).project_id, **values)
        file.status = status
        file.claimed_at = datetime.now(UTC) + timedelta(days=1)  # no checker takes it
        file.check = check if status == "processed" else None
        with self.sessions() as session:
            session.add(file)
            session.commit()
        return file.id

    def checked(self, file_id: str, *, problem: str | None = None, stage: str = "stage1") -> None:
        """Do what a checker does at the end."""
        check = {"samples": 9, "rows": 9, "bad_rows": 0, "bad_share": 0.0, "first_bad": [], "stage": stage}
        with self.sessions() as session:
            file = session.get_one(File, file_id)
            file.status, file.status_details = ("error", problem) if problem else ("processed", None)
            file.check = None if problem else check
            session.commit()

    def submit(self, tenant: Tenant | None = None, **fields: Any) -> str:
        """A new job's id, by default on captions that were checked."""
        tenant = tenant or self.tenant
        caller = Caller(
            organization_id=tenant.organization_id,
            project_id=tenant.project_id,
            user_id=tenant.user_id,
            key_id=tenant.key_id,
            role=Role.SUBMITTER,
            scopes=None,
        )
        fields = {"model": BASE, "resources": {"workers": 1}, **fields}
        if "training_file" not in fields:
            fields["training_file"] = self.file(tenant=tenant)
        now = datetime.now(UTC)
        sending = Sending(idempotency_key=None, retry_count=0, timeout=timedelta(seconds=1), arrived_at=now)
        with self.sessions() as session:
            return create(session, self.shop, caller, JobSubmission.model_validate(fields), sending).id

    def job(self, job_id: str) -> Job:
        with self.sessions() as session:
            return session.get_one(Job, job_id)

    def request(self, job_id: str) -> JobRequest:
        return JobRequest.model_validate(self.job(job_id).request)

    def states(self, job_id: str) -> dict[str, str]:
        return {run.kind: str(run.state) for run in self.job(job_id).runs}

    def told(self, job_id: str) -> list[str]:
        with self.sessions() as session:
            query = select(Event.message).where(Event.job_id == job_id).order_by(Event.sequence)
            return list(session.scalars(query))

    def outbox(self, kind: str) -> list[dict[str, Any]]:
        with self.sessions() as session:
            return list(session.scalars(select(OutboxMessage.payload).where(OutboxMessage.kind == kind)))

    def change(self, job_id: str, **values: Any) -> None:
        """What the API writes when a user asks for something."""
        with self.sessions() as session:
            session.execute(update(Job).where(Job.id == job_id).values(**values))
            session.commit()

    def lives(self, job_id: str, kind: str) -> None:
        """The newest attempt of a run says its first word."""
        with self.sessions() as session:
            self._attempt(session, job_id, kind).heartbeat_at = datetime.now(UTC)
            session.commit()

    def ends(self, job_id: str, kind: str, reason: TerminationReason = TerminationReason.SUCCEEDED) -> None:
        """The newest attempt of a run says its last word."""
        outputs = {"adapter": f"models/{job_id}", "adapter_sha256": "abc", "datasets": {"stage1.training_file": "ds-1"}}
        outcome = Outcome(reason=reason, message="so it ended", outputs=outputs)
        with self.sessions() as session:
            self._attempt(session, job_id, kind).outcome = outcome.model_dump(mode="json")
            session.commit()

    def held_since(self, job_id: str, hours: float, gpus: float) -> None:
        """Let the newest attempt have held GPUs for a while."""
        with self.sessions() as session:
            run = next(run for run in session.get_one(Job, job_id).runs if run.attempts and run.state != "done")
            run.attempts[-1].created_at = datetime.now(UTC) - timedelta(hours=hours)
            run.attempts[-1].gpus = gpus
            session.commit()

    def end(self) -> None:
        final = {"status": JobStatus.CANCELLED}
        with self.sessions() as session:
            session.execute(update(Job).where(Job.status.not_in(["succeeded", "failed"])).values(**final))
            session.execute(delete(OutboxMessage))
            session.commit()

    @staticmethod
    def _attempt(session: Session, job_id: str, kind: str) -> Attempt:
        run = next(run for run in session.get_one(Job, job_id).runs if run.kind == kind)
        assert isinstance(run, Run)
        return run.attempts[-1]
