"""What a transition does outside the database: specs, Ray jobs, logs. Each may be repeated without harm."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from ibllm_core.contract import layout
from ibllm_core.contract.job_spec import JobRequest
from ibllm_core.contract.states import RunState
from ibllm_core.errors import CoreError
from ibllm_core.storage import ObjectStore
from orchestrator.cluster.ray_cluster import RayCluster
from orchestrator.db.models import Attempt, File, Job, Project, Run
from orchestrator.errors import ServiceError
from orchestrator.jobs.prepare import Shop
from orchestrator.scheduler import specs

HEALTH_SECONDS = 2.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class World:
    """The services around the scheduler."""

    ray: RayCluster
    shop: Shop
    service_url: str

    @property
    def store(self) -> ObjectStore:
        """The object store."""
        return self.shop.store


def submit(world: World, sessions: sessionmaker[Session], payload: dict[str, Any]) -> None:
    """Write the spec of an attempt and hand it to Ray; one that was stopped meanwhile is not begun any more."""
    with sessions() as session:
        attempt = session.get(Attempt, payload["attempt_id"])
        if attempt is None or attempt.finished_at is not None or attempt.run.state != RunState.STARTING:
            return
        run, job = attempt.run, attempt.run.job
        spec = specs.build(job, run, attempt, _sources(world, session, job))
        session.commit()  # no transaction stays open while Ray is asked
        key = layout.spec(job.id, run.kind, attempt.number)
        world.store.put(key, spec.model_dump_json(indent=1).encode())
        world.ray.submit(attempt.id, key)
        attempt.submitted_at = datetime.now(UTC)
        session.commit()


def _sources(world: World, session: Session, job: Job) -> specs.SpecSources:
    request = JobRequest.model_validate(job.request)
    wanted = {location for stage in request.stages for location in stage.files().values()}
    found = session.scalars(select(File).where(File.id.in_(wanted)))
    return specs.SpecSources(
        request=request,
        parent=job.parent["prefix"] if job.parent else None,
        data_prefixes=tuple(session.get_one(Project, job.project_id).data_prefixes),
        uploads={file.id: {"key": file.key, "filename": file.filename, "sha256": file.sha256 or ""} for file in found},
        outputs={other.kind: other.outputs for other in job.runs},
        service_url=world.service_url,
    )


def service_answers(world: World) -> bool:
    """Whether attempts can be heard: their words go to the API, whose absence looks like their silence."""
    try:
        return httpx.get(f"{world.service_url}/health", timeout=HEALTH_SECONDS, trust_env=False).is_success
    except httpx.HTTPError as error:
        log.warning("the API does not answer, so that no attempt can be heard: %s", error)
        return False


def stop(world: World, run: Run) -> None:
    """Ask Ray to stop the newest attempt; where Ray is away the state's maximum age still holds."""
    try:
        world.ray.stop(run.attempts[-1].id)
    except ServiceError as error:
        log.warning("%s could not be stopped: %s", run.attempts[-1].id, error)


def keep_log(world: World, attempt: Attempt) -> None:
    """Keep an attempt's log in the object store; what is away for now must not hold up the run's end."""
    run = attempt.run
    try:
        text = world.ray.logs(attempt.id)
        world.store.put(layout.attempt_log(run.job_id, run.kind, attempt.number), text.encode(errors="replace"))
    except (ServiceError, CoreError) as error:
        log.warning("the log of %s could not be kept: %s", attempt.id, error)
