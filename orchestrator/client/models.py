"""Base models and fine-tuned ones, and the weights of these."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ibllm_core.contract.api.common import Deleted
from ibllm_core.contract.api.jobs import ModelFile, ModelFiles, ModelList, ShownModel
from orchestrator.client.download import Progress, save, untold
from orchestrator.client.transport import Transport, segment


class Models:
    """``/v1/models``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> ModelList:
        """Fine-tuned models, newest first, then the bases."""
        return self._transport.call(ModelList, "GET", "/models")

    def retrieve(self, model: str) -> ShownModel:
        """One model."""
        return self._transport.call(ShownModel, "GET", f"/models/{segment(model)}")

    def delete(self, model: str) -> Deleted:
        """Remove a fine-tuned model and its weights."""
        return self._transport.call(Deleted, "DELETE", f"/models/{segment(model)}")

    def files(self, model: str) -> Sequence[ModelFile]:
        """The files of a fine-tuned model's adapter."""
        return self._transport.call(ModelFiles, "GET", f"/models/{segment(model)}/files").data

    def download(self, model: str, file: ModelFile, path: Path, *, progress: Progress = untold) -> Path:
        """Write one of them to ``path``, and check its hash."""
        address = f"/models/{segment(model)}/files/{segment(file.name)}"
        with self._transport.stream("GET", address) as response:
            return save(response.iter_bytes(), path, num_bytes=file.bytes, sha256=file.sha256, progress=progress)
