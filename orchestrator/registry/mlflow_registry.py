"""All that the service knows of MLflow: a run for each job stage, a registered version for each finished adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.environment_variables import (
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
    MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT,
)
from mlflow.exceptions import MlflowException

from ibllm_core.contract.history import Entry
from ibllm_core.contract.states import TerminationReason
from orchestrator.errors import RegistryRefusedError, RegistryUnreachableError

EXPERIMENT = "default-project"
ALIAS = "newest"  # "latest" is reserved by MLflow
POINTS_PER_BATCH = 1000  # MLflow's limits for log_batch
TAGS_PER_BATCH = 100
# What MLflow says of a request that it will never take; everything else may pass with time.
REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE")


class Registry:
    """Experiments, runs and model versions. Every method may be repeated without harm.

    Each raises ``RegistryUnreachableError`` where MLflow is away, and ``RegistryRefusedError`` where trying again is
    of no use. No request takes longer than ``timeout_seconds``, where MLflow's own client would go on for minutes.
    """

    def __init__(self, tracking_url: str, timeout_seconds: int = 30) -> None:
        MLFLOW_HTTP_REQUEST_TIMEOUT.set(timeout_seconds)
        MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(0)
        MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.set(True)
        self._url = tracking_url
        self._client = MlflowClient(tracking_url)

    def start_run(
        self,
        *,
        job_id: str,
        run_id: str,
        kind: str,
        parameters: dict[str, str],
        started_at: datetime,
        experiment: str = EXPERIMENT,
    ) -> str:
        """The MLflow run of a job's stage, with its parameters; one that is there is found by its tag."""
        with self._translated():
            found = self._runs_of(run_id, self._experiment(experiment))
            if found:
                run = found[0]
            else:
                tags = {"ibllm.job_id": job_id, "ibllm.run_id": run_id, "ibllm.kind": kind}
                name, start = f"{job_id} {kind}", _milliseconds(started_at)
                run = self._client.create_run(self._experiment(experiment), start_time=start, run_name=name, tags=tags)
            missing = [Param(name, value) for name, value in parameters.items() if name not in run.data.params]
            if missing:
                self._client.log_batch(run.info.run_id, params=missing, synchronous=True)
            return str(run.info.run_id)

    def log(self, mlflow_run_id: str, entries: Sequence[Entry]) -> None:
        """Add points and tags. Entries that MLflow has stay as they are, since their time is part of them."""
        points = [
            Metric(name, value, entry.time_ms, entry.step) for entry in entries for name, value in entry.metrics.items()
        ]
        tags = {name: value for entry in entries for name, value in entry.tags.items()}
        with self._translated():
            for start in range(0, len(points), POINTS_PER_BATCH):
                self._client.log_batch(
                    mlflow_run_id, metrics=points[start : start + POINTS_PER_BATCH], synchronous=True
                )
            self._tag(mlflow_run_id, tags)

    def finish_run(
        self, mlflow_run_id: str, *, run_id: str, reason: TerminationReason, tags: dict[str, str], ended_at: datetime
    ) -> None:
        """Close a run for its reason, and delete its twins: what ``start_run`` leaves that timed out and was done."""
        status = "FINISHED" if reason.is_success else "KILLED" if reason is TerminationReason.CANCELLED else "FAILED"
        with self._translated():
            self._tag(mlflow_run_id, {"ibllm.reason": reason.value, **tags})
            self._client.set_terminated(mlflow_run_id, status, _milliseconds(ended_at))
            experiment_id = self._client.get_run(mlflow_run_id).info.experiment_id
            for run in self._runs_of(run_id, experiment_id):
                if run.info.run_id != mlflow_run_id:
                    self._client.delete_run(run.info.run_id)

    def register(self, *, name: str, source: str, mlflow_run_id: str, tags: dict[str, str]) -> str:
        """Make a model version of an adapter and move the alias to it; a repeated call finds the version."""
        with self._translated():
            try:
                self._client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            known = [v for v in self._client.search_model_versions(f"name = '{name}'") if v.source == source]
            version = (
                known[0]
                if known
                else self._client.create_model_version(
                    name, source, run_id=mlflow_run_id, tags=tags, await_creation_for=None
                )
            )
            self._client.set_registered_model_alias(name, ALIAS, version.version)
            return str(version.version)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _runs_of(self, run_id: str, experiment_id: str) -> list[Run]:
        """MLflow's runs of one of ours: none, one, or twins, the oldest first."""
        return list(
            self._client.search_runs(
                [experiment_id], f"tags.`ibllm.run_id` = '{run_id}'", order_by=["attributes.start_time ASC"]
            )
        )

    def _tag(self, mlflow_run_id: str, tags: dict[str, str]) -> None:
        pairs = [RunTag(name, value) for name, value in tags.items()]
        for start in range(0, len(pairs), TAGS_PER_BATCH):
            self._client.log_batch(mlflow_run_id, tags=pairs[start : start + TAGS_PER_BATCH], synchronous=True)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except MlflowException as error:
            if error.error_code in REFUSALS:
                raise RegistryRefusedError(f"MLflow at {self._url} refused: {error}") from error
            raise RegistryUnreachableError(f"MLflow at {self._url}: {error}") from error


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000)
