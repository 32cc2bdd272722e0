"""``/v1/models/{model}/files``: the weights of a fine-tuned model, to take home."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from ibllm_core.contract.api.jobs import ModelFile, ModelFiles
from ibllm_core.errors import ObjectMissingError
from orchestrator.api.dependencies import ModelsReader, SessionOf, StoreOf
from orchestrator.api.downloads import begun
from orchestrator.api.errors import Responses
from orchestrator.db.models import Model
from orchestrator.errors import NotFoundError
from orchestrator.jobs.parents import usable_model
from orchestrator.tenants.access import Caller

router = APIRouter(prefix="/models", tags=["models"])
BYTES: Responses = {200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}}


@router.get("/{model_id}/files", response_model=ModelFiles)
def list_files(model_id: str, caller: ModelsReader, session: SessionOf, store: StoreOf) -> ModelFiles:
    """The files of a model's adapter, as its manifest has them."""
    listed = _manifest(store, _find(session, caller, model_id))
    return ModelFiles(
        data=[ModelFile(name=name, bytes=entry["bytes"], sha256=entry["sha256"]) for name, entry in listed.items()]
    )


@router.get("/{model_id}/files/{name}", response_class=StreamingResponse, responses=BYTES)
def content(model_id: str, name: str, caller: ModelsReader, session: SessionOf, store: StoreOf) -> StreamingResponse:
    """One of them."""
    model = _find(session, caller, model_id)
    listed = _manifest(store, model)
    if name not in listed:
        raise NotFoundError(f"{model_id} has no file {name!r}, but {', '.join(listed)}", param="name")
    session.close()  # else a long download would keep a connection of the database
    try:
        chunks = begun(store.stream(f"{model.prefix}/{name}"))
    except ObjectMissingError as error:
        raise _gone(model) from error
    return StreamingResponse(
        chunks,
        media_type="application/octet-stream",
        headers={"content-length": str(listed[name]["bytes"])},
    )


def _find(session: Session, caller: Caller, model_id: str) -> Model:
    model = usable_model(session, caller.project, model_id)
    if model is None:
        raise NotFoundError(
            f"there is no fine-tuned model {model_id!r}: GET /v1/models lists them",
            param="model",
            code="model_not_found",
        )
    return model


def _manifest(store: StoreOf, model: Model) -> dict[str, dict[str, str]]:
    try:
        files: dict[str, dict[str, str]] = store.manifest(model.prefix)["files"]
    except ObjectMissingError as error:
        raise _gone(model) from error
    return files


def _gone(model: Model) -> NotFoundError:
    return NotFoundError(
        f"the weights of {model.id} are gone from the object store: train it anew, or delete it", code="model_not_found"
    )
