"""What a job may start from: a model, a checkpoint or a job's stage, of its own project or shared with it."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.contract.base import Contract
from ibllm_core.contract.job_spec import JobRequest, TrainingStage
from ibllm_core.contract.states import RunState, TerminationReason
from orchestrator.db.models import Checkpoint, Job, Model, ModelPermission, Run
from orchestrator.errors import InvalidRequestError, NotFoundError

JOB = re.compile(r"(ftjob-[0-9a-f]+)(?::(stage1|stage2))?")
MODEL = "ft:"
SHOWN_MODELS = 3


class Parent(Contract):
    """A trained stage, wherever it lies; ``prefix`` is an adapter's or a checkpoint's."""

    name: str = Field(description="as the job named it")
    job_id: str
    stage: TrainingStage
    base: str
    encoder: str
    template: str
    adapter: AdapterConfig
    prefix: str


def find_parent(session: Session, project_id: str, name: str, *, param: str) -> Parent:
    """The parent of a name, or ``NotFoundError``, with the same words for what is not there and what is not shared."""
    job_id, stage, prefix = _find(session, project_id, name, param)
    job = session.get_one(Job, job_id)
    request = JobRequest.model_validate(job.request)
    template = next(known.template for known in request.stages if known.stage == stage)
    return Parent(
        name=name,
        job_id=job_id,
        stage=stage,
        base=request.model,
        encoder=request.encoder,
        template=template,
        adapter=request.adapter,
        prefix=prefix,
    )


def models_to_start_from(session: Session, project_id: str, base: str) -> list[str]:
    """Names of some stage-1 models on a base, the newest first."""
    query = select(Model.id).where(
        Model.project_id == project_id, Model.base == base, Model.stage == "stage1", Model.deleted_at.is_(None)
    )
    return list(session.scalars(query.order_by(Model.created_at.desc()).limit(SHOWN_MODELS)))


def usable_model(session: Session, project_id: str, name: str, *, keep: bool = False) -> Model | None:
    """A finished model that a project may use; ``keep`` keeps it from being deleted until the transaction ends."""
    model = session.get(Model, name, with_for_update={"read": True, "key_share": True} if keep else None)
    if model is None or model.deleted_at is not None:
        return None
    return model if may_use(session, project_id, model.project_id, name) else None


def may_use(session: Session, project_id: str, owner_project_id: str, model: str) -> bool:
    """Whether a project may use a model or checkpoint: its own, or one that it was given permission for."""
    if owner_project_id == project_id:
        return True
    granted = select(ModelPermission.id).where(ModelPermission.model == model, ModelPermission.project_id == project_id)
    return session.scalar(granted) is not None


def _find(session: Session, project_id: str, name: str, param: str) -> tuple[str, Any, str]:
    """Job, stage and prefix of a name."""
    if found := JOB.fullmatch(name):
        return _of_job(session, project_id, found[1], found[2], param)
    # Kept until the transaction ends, so that nobody deletes it while a job comes to start from it.
    model = usable_model(session, project_id, name, keep=True)
    if model is not None:
        return model.job_id, model.stage, model.prefix
    checkpoint = session.execute(
        select(Checkpoint, Run.kind, Job.project_id)
        .join(Run, Run.id == Checkpoint.run_id)
        .join(Job, Job.id == Checkpoint.job_id)
        .where((Checkpoint.model == name) | (Checkpoint.id == name))
    ).first()
    if checkpoint is not None and may_use(session, project_id, checkpoint[2], checkpoint[0].model):
        return checkpoint[0].job_id, checkpoint[1], checkpoint[0].prefix
    raise _missing(name, param)


def _of_job(session: Session, project_id: str, job_id: str, stage: str | None, param: str) -> tuple[str, Any, str]:
    job = session.get(Job, job_id)
    if job is None or job.project_id != project_id:
        raise _missing(job_id, param)
    trained = [run for run in job.stages if stage in (None, run.kind)]
    if not trained:
        raise InvalidRequestError(f"{job_id} has no {stage or 'training stage yet'}", param=param)
    run = trained[-1]
    if run.state != RunState.DONE or run.reason != TerminationReason.SUCCEEDED:
        raise InvalidRequestError(
            f"{run.kind} of {job_id} has not succeeded: wait for it, or start from one of its checkpoints", param=param
        )
    adapter: str = run.outputs["adapter"]
    gone = select(Model.id).where(Model.job_id == job_id, Model.prefix == adapter, Model.deleted_at.is_not(None))
    if session.scalar(gone) is not None:
        raise _missing(job_id, param)
    return job_id, run.kind, adapter


def _missing(name: str, param: str) -> NotFoundError:
    return NotFoundError(
        f"there is no model, checkpoint or job {name!r}: GET /v1/models lists models",
        param=param,
        code="model_not_found",
    )
