"""Metrics to MLflow through a durable local spool: an MLflow outage costs training neither time nor points."""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path
from types import TracebackType

FLUSH_SECONDS = 2.0
CLOSE_PATIENCE_SECONDS = 60.0
POINTS_PER_BATCH = 1000  # MLflow's limit for log_batch
log = logging.getLogger(__name__)


class MetricSpool:
    """Appends points to a file at once, and sends them from a thread with ``log_batch``."""

    def __init__(self, tracking_uri: str, run_id: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._tracking_uri = tracking_uri
        self._run_id = run_id
        self._path = folder / f"{run_id}.jsonl"
        self._file = self._path.open("a+", encoding="utf-8")
        self._sent_path = self._path.with_suffix(".sent")
        self._sent = int(self._sent_path.read_text()) if self._sent_path.exists() else 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metric-spool", daemon=True)

    def __enter__(self) -> MetricSpool:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join(timeout=CLOSE_PATIENCE_SECONDS)
        self._file.close()
        if self._thread.is_alive():
            log.error("MLflow did not take all metrics in time; they remain in %s", self._path)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Record the values of a step; returns when they are in the local file."""
        points = [[name, value, int(time.time() * 1000), step] for name, value in metrics.items()]
        self._file.write("".join(json.dumps(point) + "\n" for point in points))
        self._file.flush()

    def _run(self) -> None:
        from mlflow import MlflowClient  # three seconds of import, kept out of the training's way
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        client = MlflowClient(self._tracking_uri)
        while True:
            closing = self._closing.wait(FLUSH_SECONDS)
            pending = self._path.read_text(encoding="utf-8").splitlines()[self._sent :]
            try:
                while pending:
                    part, pending = pending[:POINTS_PER_BATCH], pending[POINTS_PER_BATCH:]
                    metrics = [Metric(*json.loads(line)) for line in part]
                    client.log_batch(self._run_id, metrics=metrics, synchronous=True)
                    self._sent += len(part)
                    self._sent_path.write_text(str(self._sent))
            except MlflowException as error:
                log.warning("MLflow cannot be reached, metrics wait in the spool: %s", error)
                continue
            if closing:
                return
