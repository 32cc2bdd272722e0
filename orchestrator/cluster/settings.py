"""Where Ray's dashboard is, and the token that it asks for; the latter under Ray's own names."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class RaySettings(BaseSettings):
    """``IBLLM_RAY_DASHBOARD_URL``, and ``RAY_AUTH_TOKEN`` or ``RAY_AUTH_TOKEN_PATH``."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", populate_by_name=True)

    dashboard_url: str = Field("", validation_alias="IBLLM_RAY_DASHBOARD_URL")
    token: str = Field("", validation_alias="RAY_AUTH_TOKEN", repr=False)
    token_path: Path | None = Field(None, validation_alias="RAY_AUTH_TOKEN_PATH")

    @property
    def headers(self) -> dict[str, str]:
        """What the dashboard asks of its callers; nothing where Ray has no token."""
        token = self.token or (self.token_path.read_text().strip() if self.token_path else "")
        return {"Authorization": f"Bearer {token}"} if token else {}
