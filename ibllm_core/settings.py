"""What a process needs to reach the object store, read once from ``IBLLM_S3_*`` variables."""

from __future__ import annotations

from pydantic_settings import BaseSettings, SettingsConfigDict


class StorageSettings(BaseSettings):
    """Address and credentials of the object store.

    ``IBLLM_S3_ENDPOINT``, ``IBLLM_S3_BUCKET``, ``IBLLM_S3_ACCESS_KEY``, ``IBLLM_S3_SECRET_KEY``.
    """

    model_config = SettingsConfigDict(env_prefix="IBLLM_S3_", env_file=".env", extra="ignore")

    endpoint: str
    bucket: str = "ibllm"
    access_key: str
    secret_key: str
