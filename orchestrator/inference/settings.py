"""How fine-tuned models are served: read once at start from ``IBLLM_SERVE_…`` variables or a ``.env``."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ibllm_core.contract.serving import ServerArgs, secret_hash


class ServingSettings(BaseSettings):
    """The model server's place and size; without a ``secret`` the service serves no models."""

    model_config = SettingsConfigDict(env_prefix="IBLLM_SERVE_", env_file=".env", extra="ignore", populate_by_name=True)

    url: str = "http://127.0.0.1:8000"
    host: str = Field("127.0.0.1", description="where Ray's head listens for it, as the head sees itself")
    secret: str = Field("", repr=False)
    cpus: float = Field(1.0, ge=0)
    gpus: float = Field(0.0, ge=0)
    max_replicas: int = Field(1, ge=1)
    idle_seconds: float = Field(300.0, gt=0)
    start_seconds: float = Field(120.0, gt=0, description="that the server may take to start, its first model apart")

    @model_validator(mode="after")
    def _address_has_a_port(self) -> ServingSettings:
        parts = urlsplit(self.url)
        if parts.scheme != "http" or not parts.hostname or not parts.port:
            raise ValueError(f"IBLLM_SERVE_URL is {self.url!r}: write http://host:port")
        return self

    @property
    def port(self) -> int:
        """The port of ``url``, on which the server listens."""
        port = urlsplit(self.url).port
        assert port
        return port

    def server_args(self) -> ServerArgs:
        """What the server is told of these settings."""
        return ServerArgs(
            secret_sha256=secret_hash(self.secret),
            max_replicas=self.max_replicas,
            cpus=self.cpus,
            gpus=self.gpus,
            idle_seconds=self.idle_seconds,
        )
