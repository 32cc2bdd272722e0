"""What a worker process reads from its node's environment, once, at its start."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class WorkerSettings(BaseSettings):
    """``IBLLM_CACHE``: the node-local folder for bases and datasets. ``MLFLOW_TRACKING_URI``: where metrics go."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore")

    ibllm_cache: Path
    mlflow_tracking_uri: str
