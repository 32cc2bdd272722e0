"""The API's process."""

from __future__ import annotations

import uvicorn

from orchestrator.api.app import create_app
from orchestrator.settings import ServiceSettings

if __name__ == "__main__":
    settings = ServiceSettings()
    uvicorn.run(create_app(), host=settings.host, port=settings.port, access_log=False, log_level="info")
