"""What a submission leaves out, from what its files and its parent are: a pure function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from ibllm_core.contract.job_spec import Hyperparameters, JobRequest, StageRequest, TrainingStage
from ibllm_core.contract.submission import JobSubmission
from orchestrator.errors import InvalidRequestError
from orchestrator.jobs.parents import Parent

CHARACTERS_A_TOKEN = 4.0  # of English under LLaMA's tokenizers
OPENAI_SOURCE = {
    "rows_per_step": "batch_size",
    "learning_rate": "learning_rate_multiplier",
    "gate_learning_rate": "learning_rate_multiplier",
}
WHAT = {"stage1": "captions", "stage2": "instructions"}


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What is known of a file that a job names; None is not known."""

    stage: TrainingStage | None = None
    samples: int | None = None
    tokens: int | None = None
    characters: int | None = None

    @property
    def sample_tokens(self) -> float | None:
        """Mean length of a sample, counted, else estimated by its characters."""
        if not self.samples:
            return None
        if self.tokens is not None:
            return self.tokens / self.samples
        return None if self.characters is None else self.characters / CHARACTERS_A_TOKEN / self.samples


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a submission is completed by: its base and encoder, its parent, its files by field.

    ``proposals`` looks up models that a job could start from, for the message of a refusal.
    """

    base: str
    encoder: str
    parent: Parent | None
    files: Mapping[str, FileFacts]
    proposals: Callable[[], Sequence[str]]


def complete(submission: JobSubmission, around: Surroundings) -> JobRequest:
    """The whole request; ``InvalidRequestError`` names the field where stages, parent and data do not fit together."""
    stages = submission.stages or (_only_stage(submission, around),)
    if around.parent and "template" not in stages[0].model_fields_set:
        stages = (stages[0].model_copy(update={"template": around.parent.template}), *stages[1:])
    _check_start(stages[0].stage, submission, around)
    is_inherited = "adapter" not in submission.model_fields_set
    return JobRequest(
        model=around.base,
        encoder=around.encoder,
        start_from=around.parent.name if around.parent else None,
        seed=submission.seed or 0,
        stages=stages,
        adapter=around.parent.adapter if around.parent and is_inherited else submission.adapter,
        data=submission.data,
        resources=submission.resources,
        priority=submission.priority,
        budget=submission.budget,
        retry=submission.retry,
        suffix=submission.suffix,
        metadata=submission.metadata,
    )


def _only_stage(submission: JobSubmission, around: Surroundings) -> StageRequest:
    assert submission.training_file is not None  # a submission without stages has one
    facts = around.files["training_file"]
    if facts.stage is None:
        raise InvalidRequestError(
            f"{submission.training_file} was not read yet, so that the stage it trains is not known: upload the file, "
            "or describe stages",
            param="training_file",
        )
    return StageRequest(
        stage=facts.stage,
        training_file=submission.training_file,
        validation_file=submission.validation_file,
        hyperparameters=_hyperparameters(submission, facts),
    )


def _hyperparameters(submission: JobSubmission, facts: FileFacts) -> Hyperparameters:
    """OpenAI's three in our units: a step has packed rows of tokens, theirs has samples."""
    openai = submission.supervised
    chosen = Hyperparameters.model_validate(openai.of_ours())
    changes: dict[str, float] = {}
    if openai.n_epochs != "auto":
        changes["n_epochs"] = openai.n_epochs
    if openai.learning_rate_multiplier != "auto":
        for name in ("learning_rate", "gate_learning_rate"):
            changes[name] = getattr(chosen, name) * openai.learning_rate_multiplier
    if openai.batch_size != "auto" and facts.sample_tokens is not None:
        changes["rows_per_step"] = max(1, round(openai.batch_size * facts.sample_tokens / chosen.row_tokens))
    try:
        return Hyperparameters.model_validate({**chosen.model_dump(), **changes})
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        source = OPENAI_SOURCE.get(name, name)
        raise InvalidRequestError(
            f"{source} makes {name} {problem['input']:g}, which does not go: {problem['msg']}",
            param=f"{'method.supervised.' if submission.method else ''}hyperparameters.{source}",
        ) from error


def _check_start(stage: TrainingStage, submission: JobSubmission, around: Surroundings) -> None:
    param = "training_file" if submission.stages is None else "stages.0.stage"
    said = (
        f"{submission.training_file} holds {WHAT[stage]}, which train {stage}"
        if submission.stages is None
        else f"the job begins with {stage}"
    )
    parent = around.parent
    if stage == "stage2" and parent is None:
        proposals = around.proposals()
        yours = f"; yours on this base: {', '.join(proposals)}" if proposals else ""
        raise InvalidRequestError(
            f"{said}, and stage2 starts from a trained stage1: set model to one of your fine-tuned models, "
            f"or put a stage1 with captions before it{yours}",
            param=param,
            code="stage_mismatch",
        )
    if parent is None:
        return
    if stage == "stage1" and parent.stage == "stage2":
        raise InvalidRequestError(
            f"{said}, but {parent.name} has been through stage2 already, whose bind network is frozen: "
            "start from a stage1 model",
            param=param,
            code="stage_mismatch",
        )
    if around.encoder != parent.encoder:
        raise InvalidRequestError(
            f"{parent.name} was trained on {parent.encoder}'s features, not on {around.encoder}'s: leave encoder out",
            param="encoder",
            code="parent_mismatch",
        )
    given = submission.model_fields_set
    if "adapter" in given and submission.adapter.fusion != parent.adapter.fusion:
        raise InvalidRequestError(
            f"{parent.name} has fusion {parent.adapter.fusion.kind}: leave adapter out, or set adapter.fusion to it",
            param="adapter.fusion",
            code="parent_mismatch",
        )
