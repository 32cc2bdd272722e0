"""What a process needs to reach the object store, read once from ``IBLLM_S3_*`` variables."""

from __future__ import annotations

from pydantic import model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

FILE = "file://"


class StorageSettings(BaseSettings):
    """Address and credentials of the object store.

    ``IBLLM_S3_ENDPOINT``, ``IBLLM_S3_BUCKET``, ``IBLLM_S3_ACCESS_KEY``, ``IBLLM_S3_SECRET_KEY``. An endpoint
    ``file:///path`` is a folder of this machine, and needs no keys.
    """

    model_config = SettingsConfigDict(env_prefix="IBLLM_S3_", env_file=".env", extra="ignore")

    endpoint: str
    bucket: str = "ibllm"
    access_key: str = ""
    secret_key: str = ""

    @property
    def folder(self) -> str | None:
        """The folder that stands for an object store; None for a real one."""
        return self.endpoint.removeprefix(FILE) if self.endpoint.startswith(FILE) else None

    @model_validator(mode="after")
    def _has_keys(self) -> StorageSettings:
        if self.folder is None and not (self.access_key and self.secret_key):
            raise ValueError("IBLLM_S3_ACCESS_KEY and IBLLM_S3_SECRET_KEY are missing: set both")
        return self
