"""A real object store for a test module: SeaweedFS, started as the embedded stack starts it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3

from ibllm_core.settings import StorageSettings
from orchestrator.local.home import Home
from orchestrator.local.parts import build

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PEOPLE = "people"  # a bucket of somebody's own
START_SECONDS = 60


@dataclass(frozen=True)
class RunningStore:
    settings: StorageSettings
    client: S3Client

    def put(self, key: str, content: bytes, bucket: str = PEOPLE) -> None:
        self.client.put_object(Bucket=bucket, Key=key, Body=content)


@contextmanager
def running_store(folder: Path) -> Iterator[RunningStore]:
    """Serve a store out of ``folder``, with the service's bucket and that of the people."""
    home = Home(folder / "home")
    home.root.mkdir()
    part = next(part for part in build(home) if part.name == "s3")
    process = subprocess.Popen(
        part.command, env={**os.environ, **part.environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield _connected(home, part.address)
    finally:
        process.kill()
        process.wait()


def _connected(home: Home, address: str) -> RunningStore:
    keys = home.credentials()
    settings = StorageSettings(endpoint=address, access_key=keys["s3_access_key"], secret_key=keys["s3_secret_key"])
    client = boto3.client(
        "s3",
        endpoint_url=address,
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        region_name="us-east-1",
    )
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            existing = [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
            if settings.bucket in existing and PEOPLE in existing:
                return RunningStore(settings, client)
            client.create_bucket(Bucket=PEOPLE)
        except Exception:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)  # between two looks at the condition
