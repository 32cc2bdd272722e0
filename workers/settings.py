"""What a worker process reads from its node's environment, once, at its start."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class WorkerSettings(BaseSettings):
    """``IBLLM_CACHE``: the node-local folder for bases, datasets and histories.

    ``IBLLM_LOCAL_DATA``: whether jobs may name paths of the machine. ``IBLLM_PRIVATE_URLS``: whether rows may name web
    addresses in private networks. ``IBLLM_STEP_PATIENCE``: seconds that a training step may take before the watchdog
    looks, or several times the usual where that is more.
    """

    model_config = SettingsConfigDict(env_file=".env", extra="ignore")

    ibllm_cache: Path
    ibllm_local_data: bool = False
    ibllm_private_urls: bool = False
    ibllm_step_patience: float = 60.0
