"""What a transition does outside the database: specs, Ray jobs, logs, MLflow. Each may be repeated without harm."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from ibllm_core.contract import layout
from ibllm_core.contract.job_spec import JobRequest
from ibllm_core.contract.states import RunKind, TerminationReason
from ibllm_core.errors import CoreError
from ibllm_core.storage import ObjectStore
from orchestrator.cluster.ray_cluster import RayCluster
from orchestrator.db.models import File, Job, Run
from orchestrator.errors import ServiceError
from orchestrator.registry.mlflow_registry import Registry
from orchestrator.scheduler import specs

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class World:
    """The services around the scheduler."""

    ray: RayCluster
    registry: Registry
    store: ObjectStore
    service_url: str


def submit(world: World, session: Session, job: Job, run: Run) -> None:
    """Write the spec of the newest attempt and hand it to Ray."""
    request = JobRequest.model_validate(job.request)
    attempt = run.attempts[-1]
    if run.kind != RunKind.COMPILE and run.mlflow_run_id is None:
        run.mlflow_run_id = world.registry.start_run(
            job_id=job.id, run_id=run.id, kind=run.kind, parameters=_parameters(request, run)
        )
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


def close_tracking(world: World, run: Run, reason: TerminationReason) -> None:
    """Close the MLflow run of a run that is done, whatever happened to its worker."""
    if run.mlflow_run_id is None:
        return
    try:
        world.registry.finish_run(run.mlflow_run_id, reason, len(run.attempts))
    except ServiceError as error:
        log.warning("the MLflow run of %s could not be closed: %s", run.id, error)


def register(world: World, job: Job) -> str:
    """Register a succeeded job's adapter; returns the model's name for the API."""
    request = JobRequest.model_validate(job.request)
    second = next(run for run in job.runs if run.kind == RunKind.STAGE2)
    # MLflow allows no "/" and no ":" in a registered model's name.
    name = f"{request.model}.{request.suffix}" if request.suffix else request.model
    world.registry.register(
        name=name,
        source=world.store.uri(second.outputs["adapter"]),
        mlflow_run_id=str(second.mlflow_run_id),
        tags={
            "ibllm.job_id": job.id,
            "ibllm.sha256": second.outputs["adapter_sha256"],
            "ibllm.base": request.model,
            "ibllm.encoder": request.encoder,
        },
    )
    return f"ft:{request.model}:default:{request.suffix or ''}:{job.id.removeprefix('ftjob-')}"


def _parameters(request: JobRequest, run: Run) -> dict[str, str]:
    common = {"base": request.model, "encoder": request.encoder, "seed": str(request.seed)}
    stages = [stage for stage in request.stages if stage.stage == run.kind]
    chosen = stages[0].hyperparameters.model_dump() if stages else {}
    return {**common, **{name: str(value) for name, value in chosen.items()}}
