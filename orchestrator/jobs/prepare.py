"""From a submission to a request that can run: all that the contract alone cannot know is looked up and checked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from sqlalchemy.orm import Session

from ibllm_core.contract.job_spec import JobRequest
from ibllm_core.contract.submission import JobSubmission
from ibllm_core.contract.templates import TEMPLATE_NAMES
from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.dataset import open_dataset
from ibllm_core.formats.names import is_below
from ibllm_core.formats.sources import open_source
from ibllm_core.storage import ObjectStore
from orchestrator.db.models import File, Project
from orchestrator.errors import InvalidRequestError
from orchestrator.files import rows
from orchestrator.jobs.catalogue import Catalogue
from orchestrator.jobs.completion import FileFacts, Surroundings, complete
from orchestrator.jobs.parents import MODEL, Parent, find_parent, models_to_start_from
from orchestrator.settings import ServiceSettings

PURPOSE = "fine-tune"
PLACES = ("s3://", "/")


@dataclass(frozen=True, kw_only=True)
class Shop:
    """What jobs are prepared with, the same in the API and in the scheduler."""

    store: ObjectStore
    catalogue: Catalogue
    default_encoder: str
    local_data: bool


def shop_of(settings: ServiceSettings, store: ObjectStore) -> Shop:
    """The shop that a process's settings describe."""
    return Shop(
        store=store,
        catalogue=Catalogue(store),
        default_encoder=settings.default_encoder,
        local_data=settings.local_data,
    )


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """``request`` is None while ``waits_for`` files that are still being checked."""

    parent: Parent | None
    request: JobRequest | None
    files: dict[str, FileFacts]
    waits_for: tuple[str, ...] = ()


def prepare(session: Session, shop: Shop, project_id: str, submission: JobSubmission) -> Prepared:
    """``InvalidRequestError`` for the first thing that the job names in vain, ``NotFoundError`` for such a file."""
    parent = _parent(session, project_id, submission)
    base = parent.base if parent else submission.model
    shop.catalogue.require_base(base, param="model")
    encoder = submission.encoder or (parent.encoder if parent else shop.default_encoder)
    shop.catalogue.require_encoder(encoder, param="encoder")
    _check_templates(submission)
    facts: dict[str, FileFacts] = {}
    waits_for: list[str] = []
    named = submission.files()
    uploads = rows.keep(session, project_id, {place for place in named.values() if not place.startswith(PLACES)})
    for param, location in named.items():
        if location.startswith(PLACES):
            _check_place(session, shop, project_id, location, param)
            facts[param] = FileFacts()
            continue
        file = uploads.get(location)
        if file is None:
            raise rows.missing(location, param)
        if file.status == "uploaded":
            waits_for.append(file.id)
            continue
        _check_upload(file, submission.data.max_bad_share, param)
        facts[param] = _facts_of(file)
    if waits_for:
        return Prepared(parent=parent, request=None, files=facts, waits_for=tuple(waits_for))
    proposals = partial(models_to_start_from, session, project_id, base)
    around = Surroundings(base=base, encoder=encoder, parent=parent, files=facts, proposals=proposals)
    return Prepared(parent=parent, request=complete(submission, around), files=facts)


def _parent(session: Session, project_id: str, submission: JobSubmission) -> Parent | None:
    if submission.model.startswith(MODEL):
        if submission.start_from not in (None, submission.model):
            raise InvalidRequestError(
                f"model is {submission.model!r} and start_from {submission.start_from!r}: say where it starts once",
                param="start_from",
            )
        return find_parent(session, project_id, submission.model, param="model")
    if submission.start_from is None:
        return None
    parent = find_parent(session, project_id, submission.start_from, param="start_from")
    if parent.base != submission.model:
        raise InvalidRequestError(
            f"{submission.start_from} was trained on {parent.base!r}, not on {submission.model!r}: set model to it",
            param="model",
            code="parent_mismatch",
        )
    return parent


def _check_templates(submission: JobSubmission) -> None:
    for index, stage in enumerate(submission.stages or ()):
        if stage.template not in TEMPLATE_NAMES:
            param = f"stages.{index}.template"
            raise InvalidRequestError(
                f"{param} must be one of {', '.join(TEMPLATE_NAMES)}, but is {stage.template!r}", param=param
            )


def _check_place(session: Session, shop: Shop, project_id: str, location: str, param: str) -> None:
    """What lies elsewhere must be allowed, there, and of a known format; its rows are the compile run's to read."""
    if not (location.startswith("/") and not shop.local_data):  # a path gets its own sentence below
        prefixes = session.get_one(Project, project_id).data_prefixes
        if not is_below(location, prefixes):
            allowed = ", ".join(prefixes) or "no addresses"
            raise InvalidRequestError(
                f"{param}: this project may not read {location}, it may read {allowed}: upload the data, or ask the "
                "operator to add the address to the project's data_prefixes",
                param=param,
                code="address_not_allowed",
            )
    try:
        open_dataset(open_source(location, settings=shop.store.settings, allow_local=shop.local_data))
    except InvalidDataError as error:
        raise InvalidRequestError(f"{param}: {error.message}", param=param) from error


def _check_upload(file: File, max_bad_share: float, param: str) -> None:
    """An upload was checked when it came; how many bad rows are too many is the job's word."""
    problem = _problem_of(file, max_bad_share)
    if problem:
        raise InvalidRequestError(
            f"{param}: {file.id} cannot be trained on: {problem}", param=param, code="invalid_training_file"
        )


def _problem_of(file: File, max_bad_share: float) -> str | None:
    if file.purpose != PURPOSE:
        return f"it was made for {file.purpose}; upload training data with purpose {PURPOSE}"
    if file.check is None:  # its rows cannot be read, or it came before rows were counted
        return file.status_details
    if file.check["samples"] and file.check["bad_share"] <= max_bad_share:
        return None
    first = file.check["first_bad"][0]
    return (
        f"{file.check['bad_rows']} of {file.check['rows']} rows are bad, more than data.max_bad_share "
        f"{max_bad_share:g} allows; row {first['row']}: {first['reason']}"
    )


def _facts_of(file: File) -> FileFacts:
    check = file.check or {}
    tokens = check.get("tokens")
    return FileFacts(
        stage=check.get("stage"),
        samples=check.get("samples"),
        tokens=tokens["total"] if tokens else None,
        characters=check.get("characters"),
    )
