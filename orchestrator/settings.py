"""The service's settings: read once at start from ``IBLLM_…`` variables or a ``.env``; see docs/settings.md."""

from __future__ import annotations

from pydantic_settings import BaseSettings, SettingsConfigDict


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
    local_data: bool = False
