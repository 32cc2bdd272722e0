"""A training stage on files of one machine, without a service: its spec, and what has to be made ready for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from ibllm_core.contract import layout
from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.contract.base import Contract
from ibllm_core.contract.job_spec import (
    IMAGEBIND,
    CheckpointPolicy,
    DataSettings,
    EvaluationSettings,
    Hyperparameters,
    Resources,
    TrainingStage,
)
from ibllm_core.contract.run_spec import CompileInput, CompileSpec, DatasetShare, TrainSpec
from ibllm_core.errors import InvalidSpecError
from ibllm_core.local_store import LocalStore

NAME = "local"  # of job, run, attempt and base: there is one of each
PARENT = "parent"


class LocalData(Contract):
    """Data of any format that a job takes, or the folder of a compiled dataset; how often an epoch passes over it."""

    path: Path
    weight: float = Field(1.0, gt=0, le=100)


class LocalTraining(Contract):
    """One training stage."""

    base: Path = Field(description="a LLaMA: safetensors folder, GGUF file or Meta's folder")
    data: tuple[LocalData, ...] = Field(min_length=1)
    validation: Path | None = Field(None, description="as data; measured while training")
    output: Path = Field(description="folder for checkpoints, metrics and the adapter")
    stage: TrainingStage
    parent: Path | None = Field(None, description="an adapter's or a checkpoint's folder; stage 2 needs it")
    template: str = "alpaca"
    encoder: str = IMAGEBIND
    encoder_weights: Path | None = Field(None, description="for encoders that do not bring theirs along")
    adapter: AdapterConfig = Field(default_factory=AdapterConfig)
    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters)
    resources: Resources = Field(default_factory=Resources, description="of one process; workers is torchrun's")
    data_settings: DataSettings = Field(default_factory=DataSettings)
    checkpoints: CheckpointPolicy = Field(default_factory=CheckpointPolicy)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
    seed: int = Field(0, ge=0, le=2**31 - 1)


def read(path: Path) -> LocalTraining:
    """The spec in a file; ``InvalidSpecError`` lists everything that is wrong with it."""
    try:
        return LocalTraining.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidSpecError(f"{path} cannot be read: {error.strerror}: give the path of a JSON file") from error
    except ValidationError as error:
        problems = [f"- {'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors()]
        raise InvalidSpecError(f"{path} is no training spec:\n" + "\n".join(problems)) from error


def open_output(training: LocalTraining) -> LocalStore:
    """The output folder as a store, in which folders from elsewhere have their places, too."""
    mounts = {layout.dataset(name): path for name, path in _named(training).items() if is_compiled(path)}
    if training.parent:
        mounts[PARENT] = training.parent
    return LocalStore(training.output.absolute(), {name: path.absolute() for name, path in mounts.items()})


def is_compiled(path: Path) -> bool:
    """Whether a path is a compiled dataset's folder and no data as people have it."""
    return (path / "MANIFEST.json").is_file() and (path / "features-00000.parquet").is_file()


def make_ready(training: LocalTraining, store: LocalStore) -> dict[str, str]:
    """Bring in base and encoder, and compile what is not; the datasets' ids by their fields. Once for all processes.

    A second call finds what the first one made.
    """
    from ibllm_core.bases.formats import open_source
    from workers import import_base, import_encoder

    if not store.exists(layout.manifest(layout.base(NAME))):
        import_base.upload(store, NAME, open_source(training.base))
    if training.encoder_weights and not store.exists(layout.manifest(layout.encoder(training.encoder))):
        import_encoder.upload(store, training.encoder, training.encoder_weights)
    ids = {name: name for name, path in _named(training).items() if is_compiled(path)}
    raw = {name: path for name, path in _named(training).items() if name not in ids}
    return ids | (_compile(training, store, raw) if raw else {})


def to_spec(training: LocalTraining, datasets: dict[str, str], workers: int) -> TrainSpec:
    """The spec of a run as the service would write it."""
    return TrainSpec(
        **_common(training, workers),
        stage=training.stage,
        datasets=tuple(
            DatasetShare(dataset=datasets[f"data.{number}"], weight=share.weight)
            for number, share in enumerate(training.data)
        ),
        validation_dataset=datasets.get("validation"),
        template=training.template,
        parent_adapter=PARENT if training.parent else None,
        hyperparameters=training.hyperparameters,
        checkpoints=training.checkpoints,
        evaluation=training.evaluation,
        adapter_prefix="adapter",
    )


def _named(training: LocalTraining) -> dict[str, Path]:
    named = {f"data.{number}": share.path for number, share in enumerate(training.data)}
    return named | ({"validation": training.validation} if training.validation else {})


def _common(training: LocalTraining, workers: int) -> dict[str, Any]:
    return {
        "job_id": NAME,
        "run_id": NAME,
        "attempt_id": NAME,
        "attempt_number": 1,
        "service_url": "",
        "token": "",
        "base": NAME,
        "encoder": training.encoder,
        "adapter": training.adapter,
        "seed": training.seed,
        "resources": training.resources.model_copy(update={"workers": workers, "min_workers": None}),
    }


def _compile(training: LocalTraining, store: LocalStore, raw: dict[str, Path]) -> dict[str, str]:
    """Compile data with the compile run's own code, on a Ray of this machine that ends with it."""
    import ray

    from workers.compile import run as compile_run
    from workers.settings import WorkerSettings
    from workers.train.console import Console

    cache = store.root / "cache"
    # Ray's processes read their settings as on any node.
    os.environ |= {"IBLLM_S3_ENDPOINT": f"file://{store.root}", "IBLLM_CACHE": str(cache), "IBLLM_LOCAL_DATA": "true"}
    spec = CompileSpec(
        **_common(training, workers=1),
        inputs=tuple(
            CompileInput(
                name=name,
                location=str(path.absolute()),
                template=training.template,
                row_tokens=training.hyperparameters.row_tokens,
            )
            for name, path in raw.items()
        ),
        data=training.data_settings,
        data_prefixes=("s3://", "/"),
    )
    ray.init(address="local", include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        outcome = compile_run.run(spec, store, WorkerSettings(), Console(rank=0))
    finally:
        ray.shutdown()
    datasets: dict[str, str] = outcome.outputs["datasets"]
    return datasets
