"""``/v1/models``: base models, and fine-tuned ones with the job that made each."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter
from sqlalchemy import Select, and_, or_, select

from ibllm_core.contract.api.common import Deleted
from ibllm_core.contract.api.jobs import ModelList, ShownModel
from ibllm_core.contract.states import FINAL_STATUSES
from orchestrator.api.dependencies import ModelsReader, ModelsWriter, SessionOf, ShopOf, StoreOf
from orchestrator.db.models import Job, Model, ModelPermission, Run
from orchestrator.errors import ConflictError, InvalidRequestError, NotFoundError
from orchestrator.jobs.parents import may_use
from orchestrator.jobs.prepare import Shop
from orchestrator.tenants import audit
from orchestrator.tenants.access import Caller

router = APIRouter(prefix="/models", tags=["models"])
BASES_OWNER = "ibllm"


@router.get("", response_model=ModelList)
def list_models(caller: ModelsReader, session: SessionOf, shop: ShopOf) -> ModelList:
    """All models that the project may use: its own and those shared with it, newest first, then the bases."""
    shared = select(ModelPermission.model).where(ModelPermission.project_id == caller.project)
    query = _models().where(or_(Model.project_id == caller.project, Model.id.in_(shared)))
    tuned = [_shown(model, run_id, caller, shop) for model, run_id in session.execute(query)]
    return ModelList(data=[*tuned, *(_base(name) for name in shop.catalogue.bases())])


@router.get("/{model_id:path}", response_model=ShownModel)
def retrieve(model_id: str, caller: ModelsReader, session: SessionOf, shop: ShopOf) -> ShownModel:
    """One model."""
    found = session.execute(_models().where(Model.id == model_id)).first()
    if found is not None and may_use(session, caller.project, found[0].project_id, model_id):
        return _shown(found[0], found[1], caller, shop)
    if model_id in shop.catalogue.bases():
        return _base(model_id)
    raise _missing(model_id)


@router.delete("/{model_id:path}", response_model=Deleted)
def delete(model_id: str, caller: ModelsWriter, session: SessionOf, store: StoreOf, shop: ShopOf) -> Deleted:
    """Remove a fine-tuned model and its weights; open jobs that start from it keep it."""
    model = session.get(Model, model_id, with_for_update=True)
    if model is None or model.project_id != caller.project:
        if model_id in shop.catalogue.bases():
            raise InvalidRequestError(f"{model_id} is a base model, which every project uses: it stays", param="model")
        raise _missing(model_id)
    if model.deleted_at is not None:
        store.delete_folder(model.prefix)  # an earlier try may have been cut short
        return Deleted(id=model_id, object="model")
    using = select(Job.id).where(Job.parent["prefix"].astext == model.prefix, Job.status.not_in(FINAL_STATUSES))
    if (job_id := session.scalar(using.limit(1))) is not None:
        raise ConflictError(f"job {job_id} starts from {model_id}: cancel it, or wait for its end")
    model.deleted_at = datetime.now(UTC)
    audit.record(session, caller, "model.deleted", model_id)
    session.commit()
    store.delete_folder(model.prefix)
    return Deleted(id=model_id, object="model")


def _models() -> Select[Model, str | None]:
    """Models that exist, with the MLflow run of the stage that made each."""
    made_by = and_(Run.job_id == Model.job_id, Run.kind == Model.stage)
    query = select(Model, Run.mlflow_run_id).outerjoin(Run, made_by)
    return query.where(Model.deleted_at.is_(None)).order_by(Model.created_at.desc(), Model.id.desc())


def _missing(model_id: str) -> NotFoundError:
    return NotFoundError(
        f"there is no model {model_id!r}: GET /v1/models lists them", param="model", code="model_not_found"
    )


def _base(name: str) -> ShownModel:
    return ShownModel(id=name, created=0, owned_by=BASES_OWNER, base=name)


def _shown(model: Model, mlflow_run_id: str | None, caller: Caller, shop: Shop) -> ShownModel:
    return ShownModel.model_validate(
        {
            "id": model.id,
            "created": int(model.created_at.timestamp()),
            "owned_by": caller.organization_id,
            "base": model.base,
            "encoder": model.encoder,
            "stage": model.stage,
            "job_id": model.job_id,
            "uri": shop.store.uri(model.prefix),
            "sha256": model.sha256,
            "mlflow_run_id": mlflow_run_id,
        }
    )
