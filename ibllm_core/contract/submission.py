"""The body of ``POST /v1/fine_tuning/jobs``: OpenAI's fields, and ours beside them; what is left out is inferred."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from ibllm_core.contract.base import Contract
from ibllm_core.contract.job_spec import MAX_LOCATION, MAX_SEED, Hyperparameters, JobFields, StageRequest, check_order

Auto = Literal["auto"]
OPENAI_NAMES = ("n_epochs", "batch_size", "learning_rate_multiplier")


class SupervisedHyperparameters(Contract):
    """OpenAI's three, each a number or ``auto``; every setting of ours may stand beside them, by its own name."""

    model_config = ConfigDict(extra="allow", frozen=True)

    n_epochs: Annotated[int, Field(ge=1, le=1000)] | Auto = Field("auto", description="auto: 1")
    batch_size: Annotated[int, Field(ge=1, le=1 << 20)] | Auto = Field(
        "auto", description="samples a step, on average over the file"
    )
    learning_rate_multiplier: Annotated[float, Field(ge=1e-9, le=1e6)] | Auto = Field(
        "auto", description="of all learning rates"
    )

    @model_validator(mode="after")
    def _rest_is_ours(self) -> SupervisedHyperparameters:
        self.of_ours()
        return self

    def of_ours(self) -> dict[str, Any]:
        """Settings of ours that were sent along; ``ValueError`` for what is none."""
        extra = dict(self.model_extra or {})
        Hyperparameters.model_validate(extra)
        return extra


class SupervisedMethod(Contract):
    """Plain supervised training."""

    hyperparameters: SupervisedHyperparameters = Field(default_factory=SupervisedHyperparameters)


class Method(Contract):
    """How the model learns."""

    type: Literal["supervised"] = "supervised"
    supervised: SupervisedMethod = Field(default_factory=SupervisedMethod)


class Integration(Contract):
    """Where metrics go; every job's go to this service's MLflow, which needs no settings."""

    type: Literal["mlflow"]
    mlflow: dict[str, str] = Field(default_factory=dict, max_length=0)


class JobSubmission(JobFields):
    """A job as a client asks for it.

    Either ``training_file``, of which captions mean stage 1 and instructions stage 2, or ``stages``. ``model`` is a
    base model, or a fine-tuned model or a checkpoint to start from, as ``start_from`` says it beside the base.
    """

    model: str = Field(max_length=512, description="a base model, or a fine-tuned model or checkpoint to start from")
    encoder: str | None = Field(
        None, max_length=256, description="the frozen media encoder; null: the parent's, or the service's"
    )
    training_file: str | None = Field(None, max_length=MAX_LOCATION)
    validation_file: str | None = Field(None, max_length=MAX_LOCATION)
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="null: 0")
    method: Method | None = None
    hyperparameters: SupervisedHyperparameters | None = Field(None, deprecated=True, description="OpenAI's older place")
    integrations: tuple[Integration, ...] | None = Field(None, max_length=5)
    start_from: str | None = Field(
        None,
        max_length=512,
        description="a model's name, or the id of a job (`ftjob-…`, `ftjob-…:stage1`) or a checkpoint",
    )
    stages: tuple[StageRequest, ...] | None = Field(None, min_length=1, max_length=2)

    @model_validator(mode="after")
    def _says_each_thing_once(self) -> JobSubmission:
        if self.stages is None:
            if self.training_file is None:
                raise ValueError("training_file is missing: name an uploaded file, or describe stages")
        else:
            check_order(self.stages)
            twice = [
                name for name in ("validation_file", "method", "hyperparameters") if getattr(self, name) is not None
            ]
            if twice:
                raise ValueError(f"{', '.join(twice)} and stages are both given: say it in stages")
            if self.training_file not in (None, self.stages[0].training_file):
                raise ValueError("training_file must be stages[0].training_file, or be left out")
        if self.method and self.hyperparameters:
            raise ValueError("method and hyperparameters are both given: hyperparameters is method's older place")
        return self

    @property
    def supervised(self) -> SupervisedHyperparameters:
        """OpenAI's settings, wherever they were sent."""
        if self.method:
            return self.method.supervised.hyperparameters
        return self.hyperparameters or SupervisedHyperparameters()

    def files(self) -> dict[str, str]:
        """All data that the job names, by the field that names it."""
        if self.stages is None:
            named = {"training_file": self.training_file, "validation_file": self.validation_file}
            return {field: location for field, location in named.items() if location is not None}
        return {
            f"stages.{index}.{field}": location
            for index, stage in enumerate(self.stages)
            for field, location in stage.files().items()
        }
