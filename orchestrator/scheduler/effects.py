"""What a transition does outside the database: specs, Ray jobs, logs. Each may be repeated without harm."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import httpx
from sqlalchemy import select
from sqlalchemy.orm import Session

from ibllm_core.contract import layout
from ibllm_core.contract.job_spec import JobRequest
from ibllm_core.errors import CoreError
from ibllm_core.storage import ObjectStore
from orchestrator.cluster.ray_cluster import RayCluster
from orchestrator.db.models import File, Job, Run
from orchestrator.errors import ServiceError
from orchestrator.scheduler import specs

HEALTH_SECONDS = 2.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class World:
    """The services around the scheduler."""

    ray: RayCluster
    store: ObjectStore
    service_url: str


def submit(world: World, session: Session, job: Job, run: Run) -> None:
    """Write the spec of the newest attempt and hand it to Ray."""
    request = JobRequest.model_validate(job.request)
    attempt = run.attempts[-1]
    wanted = {location for stage in request.stages for location in stage.files().values()}
    found = session.scalars(select(File).where(File.id.in_(wanted)))
    sources = specs.SpecSources(
        request=request,
        uploads={file.id: {"key": file.key, "filename": file.filename, "sha256": file.sha256} for file in found},
        outputs={other.kind: other.outputs for other in job.runs},
        service_url=world.service_url,
    )
    key = layout.spec(job.id, run.kind, attempt.number)
    world.store.put(key, specs.build(job, run, attempt, sources).model_dump_json(indent=1).encode())
    world.ray.submit(attempt.id, key)


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


def keep_log(world: World, job: Job, run: Run) -> None:
    """Keep the driver's log in the object store; what is away for now must not hold up the run's end."""
    attempt = run.attempts[-1]
    try:
        text = world.ray.logs(attempt.id)
        world.store.put(layout.attempt_log(job.id, run.kind, attempt.number), text.encode())
    except (ServiceError, CoreError) as error:
        log.warning("the log of %s could not be kept: %s", attempt.id, error)
