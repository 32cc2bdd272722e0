"""What a worker process reads from its node's environment, once, at its start."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class WorkerSettings(BaseSettings):
    """``IBLLM_CACHE``: the node-local folder for bases and datasets. ``MLFLOW_TRACKING_URI``: where metrics go.

    ``IBLLM_LOCAL_DATA``: whether jobs may name paths of the machine. ``IBLLM_PRIVATE_URLS``: whether rows may name web
    addresses in private networks.
    """

    model_config = SettingsConfigDict(env_file=".env", extra="ignore")

    ibllm_cache: Path
    mlflow_tracking_uri: str
    ibllm_local_data: bool = False
    ibllm_private_urls: bool = False
