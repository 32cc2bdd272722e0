"""All that the service knows of MLflow: a run for each job stage, a registered version for each finished adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from ibllm_core.contract.states import TerminationReason
from orchestrator.errors import RegistryUnreachableError

EXPERIMENT = "default-project"
ALIAS = "newest"  # "latest" is reserved by MLflow


class Registry:
    """Experiments, runs and model versions. Every method raises ``RegistryUnreachableError`` alone."""

    def __init__(self, tracking_url: str) -> None:
        self._url = tracking_url
        self._client = MlflowClient(tracking_url)

    def start_run(self, *, job_id: str, run_id: str, kind: str, parameters: dict[str, str]) -> str:
        """The MLflow run of a job's stage; a retry finds the one that its first attempt made."""
        with self._translated():
            experiment = self._client.get_experiment_by_name(EXPERIMENT)
            experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(EXPERIMENT)
            found = self._client.search_runs([experiment_id], f"tags.`ibllm.run_id` = '{run_id}'", max_results=1)
            if found:
                return str(found[0].info.run_id)
            tags = {"ibllm.job_id": job_id, "ibllm.run_id": run_id, "ibllm.kind": kind}
            run = self._client.create_run(experiment_id, run_name=f"{job_id} {kind}", tags=tags)
            for name, value in parameters.items():
                self._client.log_param(run.info.run_id, name, value)
            return str(run.info.run_id)

    def finish_run(self, mlflow_run_id: str, reason: TerminationReason, attempts: int) -> None:
        """Close a run for its reason: whatever happened to the worker, no run stays RUNNING."""
        status = "FINISHED" if reason.is_success else "KILLED" if reason is TerminationReason.CANCELLED else "FAILED"
        with self._translated():
            self._client.set_tag(mlflow_run_id, "ibllm.reason", reason.value)
            self._client.set_tag(mlflow_run_id, "ibllm.attempts", str(attempts))
            self._client.set_terminated(mlflow_run_id, status)

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
                known[0] if known else self._client.create_model_version(name, source, run_id=mlflow_run_id, tags=tags)
            )
            self._client.set_registered_model_alias(name, ALIAS, version.version)
            return str(version.version)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except MlflowException as error:
            raise RegistryUnreachableError(f"MLflow at {self._url}: {error}") from error
