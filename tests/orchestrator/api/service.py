"""The API in this process, over a real PostgreSQL and a real object store, as its users see it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from fastapi.testclient import TestClient
from httpx2 import Response

from ibllm_core.storage import ObjectStore
from orchestrator.api.app import create_app
from tests.ibllm_core.formats.files import chat_row, json_lines
from tests.ibllm_core.formats.object_store import RunningStore

API_KEY = "a-key-of-tests"
BASE = "tiny"
ENCODER = "efficientnet-lite0"


@dataclass(frozen=True)
class Service:
    http: TestClient
    running: RunningStore
    store: ObjectStore

    def upload(self, name: str, content: bytes, **form: str) -> Response:
        return self.http.post("/v1/files", data={"purpose": "fine-tune", **form}, files={"file": (name, content)})

    def file(self, name: str = "rows.jsonl", content: bytes | None = None) -> str:
        """The id of a file that was uploaded, by default of one good row."""
        answer = self.upload(name, json_lines([chat_row()]) if content is None else content)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def create_job(self, first: dict[str, Any] | str, **changes: Any) -> Response:
        """Ask for a job whose stage 1 has the given data, or the given fields; stage 2's data is good."""
        stage1 = {"stage": "stage1", **({"training_file": first} if isinstance(first, str) else first)}
        request = {
            "model": BASE,
            "encoder": ENCODER,
            "stages": [{"training_file": self.file(), **stage1}, {"stage": "stage2", "training_file": self.file()}],
            **changes,
        }
        body = json.dumps(request)  # ASCII, and so able to carry what is no text
        return self.http.post("/v1/fine_tuning/jobs", content=body, headers={"content-type": "application/json"})


def settings_of(database: str, running: RunningStore) -> dict[str, str]:
    """The environment that the service reads at its start."""
    return {
        "IBLLM_DATABASE_URL": database,
        "IBLLM_API_KEY": API_KEY,
        "IBLLM_SERVICE_URL": "http://none",
        "IBLLM_S3_ENDPOINT": running.settings.endpoint,
        "IBLLM_S3_BUCKET": running.settings.bucket,
        "IBLLM_S3_ACCESS_KEY": running.settings.access_key,
        "IBLLM_S3_SECRET_KEY": running.settings.secret_key,
    }


def start(running: RunningStore) -> Service:
    """The service that the environment describes."""
    http = TestClient(create_app(), headers={"authorization": f"Bearer {os.environ['IBLLM_API_KEY']}"})
    return Service(http, running, ObjectStore(running.settings))


def error_of(answer: Response, status: int = 400) -> dict[str, Any]:
    """The error of an answer, in OpenAI's shape."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return dict(error)
