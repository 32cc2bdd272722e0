"""The API in this process, over a real PostgreSQL and a real object store, as its users see it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response
from openai import AsyncOpenAI, DefaultAsyncHttpxClient, DefaultHttpxClient, OpenAI

from ibllm_core.storage import ObjectStore
from orchestrator.api.app import create_app
from orchestrator.db.session import connect, session_factory
from orchestrator.files.checker import Checker
from tests.ibllm_core.formats.files import chat_row, json_lines
from tests.ibllm_core.formats.object_store import RunningStore

API_KEY = "a-key-of-tests"
BASE = "tiny"
ENCODER = "efficientnet-lite0"
WAIT_SECONDS = 60


@dataclass(frozen=True)
class Service:
    http: TestClient
    running: RunningStore
    store: ObjectStore
    app: FastAPI

    def upload(self, name: str, content: bytes, **form: str) -> Response:
        return self.http.post("/v1/files", data={"purpose": "fine-tune", **form}, files={"file": (name, content)})

    def checked(self, answer: Response) -> dict[str, Any]:
        """The file of an upload's answer, once the checker has read it."""
        assert answer.status_code == 200, answer.text
        file: dict[str, Any] = answer.json()
        deadline = time.monotonic() + WAIT_SECONDS
        while file["status"] == "uploaded":
            assert time.monotonic() < deadline, "nobody checks the file"
            time.sleep(0.02)  # between two looks at the condition
            file = self.http.get(f"/v1/files/{file['id']}").json()
        return file

    def file(self, name: str = "rows.jsonl", content: bytes | None = None) -> str:
        """The id of a file that was uploaded and checked, by default of one good row."""
        answer = self.upload(name, json_lines([chat_row()]) if content is None else content)
        return str(self.checked(answer)["id"])

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


@dataclass(frozen=True)
class Live:
    """The same service on a port, for clients that need one."""

    base_url: str

    def openai(self, key: str = API_KEY, **options: Any) -> OpenAI:
        """OpenAI's own client, unmodified."""
        http = DefaultHttpxClient(trust_env=False)
        return OpenAI(base_url=self.base_url, api_key=key, http_client=http, **options)

    def async_openai(self, key: str = API_KEY, **options: Any) -> AsyncOpenAI:
        http = DefaultAsyncHttpxClient(trust_env=False)
        return AsyncOpenAI(base_url=self.base_url, api_key=key, http_client=http, **options)


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
    app = create_app()
    http = TestClient(app, headers={"authorization": f"Bearer {os.environ['IBLLM_API_KEY']}"})
    return Service(http, running, ObjectStore(running.settings), app)


@contextmanager
def checking(database: str, running: RunningStore) -> Iterator[None]:
    """A checker at work beside the service."""
    stop = threading.Event()
    checker = Checker(session_factory(connect(database)), running.settings)
    thread = threading.Thread(target=checker.run, args=(stop,), daemon=True)
    thread.start()
    yield
    stop.set()
    thread.join()


@contextmanager
def serving(app: FastAPI) -> Iterator[Live]:
    """The application on a free port of this machine."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + WAIT_SECONDS
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)  # between two looks at the condition
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Live(f"http://127.0.0.1:{port}/v1")
    server.should_exit = True
    thread.join()


def error_of(answer: Response, status: int = 400) -> dict[str, Any]:
    """The error of an answer, in OpenAI's shape."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return dict(error)
