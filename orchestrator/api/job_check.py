"""What a job's contract alone cannot know: that base, encoder, templates and data exist and are good."""

from __future__ import annotations

from sqlalchemy.orm import Session

from ibllm_core.contract import layout
from ibllm_core.contract.job_spec import IMAGEBIND, JobRequest
from ibllm_core.contract.templates import TEMPLATE_NAMES
from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.dataset import open_dataset
from ibllm_core.formats.sources import open_source
from ibllm_core.storage import ObjectStore
from orchestrator.api.bases import require_base
from orchestrator.api.files import find as find_file
from orchestrator.db.models import File
from orchestrator.errors import InvalidRequestError
from orchestrator.settings import ServiceSettings


def check_request(request: JobRequest, session: Session, store: ObjectStore, settings: ServiceSettings) -> None:
    """``InvalidRequestError`` for the first thing that the job names in vain, ``NotFoundError`` for such a file."""
    require_base(store, request.model, param="model")
    if request.encoder == IMAGEBIND and not store.exists(layout.manifest(layout.encoder(IMAGEBIND))):
        raise InvalidRequestError(
            "ImageBind's weights are not in the object store, and this project may not ship them: bring them in with "
            "`ibllm import-encoder imagebind imagebind_huge.pth`, or choose another encoder",
            param="encoder",
            code="encoder_not_found",
        )
    for index, stage in enumerate(request.stages):
        if stage.template not in TEMPLATE_NAMES:
            param = f"stages.{index}.template"
            raise InvalidRequestError(
                f"{param} must be one of {', '.join(TEMPLATE_NAMES)}, but is {stage.template!r}", param=param
            )
        for field, location in stage.files().items():
            param = f"stages.{index}.{field}"
            if location.startswith(("s3://", "/")):
                _check_place(location, store, param, allow_local=settings.local_data)
            else:
                _check_upload(find_file(session, location, param=param), request.data.max_bad_share, param)


def _check_place(location: str, store: ObjectStore, param: str, *, allow_local: bool) -> None:
    """What lies elsewhere must be there and of a known format; its rows are the compile run's to read."""
    try:
        open_dataset(open_source(location, settings=store.settings, allow_local=allow_local))
    except InvalidDataError as error:
        raise InvalidRequestError(f"{param}: {error.message}", param=param) from error


def _check_upload(file: File, max_bad_share: float, param: str) -> None:
    """An upload was checked when it came; how many bad rows are too many is the job's word."""
    problem = _problem_of(file, max_bad_share)
    if problem:
        raise InvalidRequestError(f"{param}: {file.id} cannot be trained on: {problem}", param=param)


def _problem_of(file: File, max_bad_share: float) -> str | None:
    if file.purpose != "fine-tune":
        return f"it was made for {file.purpose}; upload training data with purpose fine-tune"
    if file.check is None:  # its rows cannot be read, or it came before rows were counted
        return file.status_details
    if file.check["samples"] and file.check["bad_share"] <= max_bad_share:
        return None
    first = file.check["first_bad"][0]
    return (
        f"{file.check['bad_rows']} of {file.check['rows']} rows are bad, more than data.max_bad_share "
        f"{max_bad_share:g} allows; row {first['row']}: {first['reason']}"
    )
