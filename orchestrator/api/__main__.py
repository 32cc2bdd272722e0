"""The API's process."""

from __future__ import annotations

import gc

import uvicorn

from orchestrator.api.app import create_app
from orchestrator.settings import ServiceSettings

if __name__ == "__main__":
    settings = ServiceSettings()
    app = create_app()
    gc.collect()
    gc.freeze()  # what is there now stays: collections that look through all of it would hold up requests for long
    uvicorn.run(app, host=settings.host, port=settings.port, access_log=False, log_level="info")
