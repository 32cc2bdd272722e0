"""The service's settings: read once at start from ``IBLLM_…`` variables or a ``.env``; see docs/settings.md."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from ibllm_core.contract.job_spec import IMAGEBIND


class ServiceSettings(BaseSettings):
    """What the API and the scheduler need to know; no defaults for what must be secret."""

    model_config = SettingsConfigDict(env_prefix="IBLLM_", env_file=".env", extra="ignore")

    database_url: str
    api_key: str
    service_url: str
    ray_dashboard_url: str = ""
    mlflow_url: str = ""
    host: str = "127.0.0.1"
    port: int = 8080
    max_file_mb: int = 512
    max_upload_gb: int = Field(100, ge=1, le=625)  # 10,000 parts of 64 MiB, the most that S3 puts together
    checker_heartbeat: Path | None = None
    local_data: bool = False
    private_urls: bool = False
    default_encoder: str = IMAGEBIND
