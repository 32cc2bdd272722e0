"""Files: upload whole or in parts, wait for the check, download."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ibllm_core.contract.api.files import (
    DeletedFile,
    ExpiresAfter,
    FileObject,
    UploadCompletion,
    UploadObject,
    UploadPartObject,
    UploadRequest,
)
from orchestrator.client.download import Progress, save, untold
from orchestrator.client.errors import ClientError, FileRefusedError, NotReachableError
from orchestrator.client.transport import Transport, segment

WHOLE_BYTES = 64 << 20  # what is larger comes in parts of this size, each of which can be sent again
TRANSFER_SECONDS = 600.0
FIRST_LOOK, LONGEST_PAUSE = 0.1, 5.0


class Files:
    """``/v1/files`` and ``/v1/uploads``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def upload(
        self,
        path: Path,
        *,
        base: str | None = None,
        template: str | None = None,
        expires_in_seconds: int | None = None,
        progress: Progress = untold,
    ) -> FileObject:
        """Send training data, which the service then checks; see ``wait_for_processing``.

        ``base`` and ``template`` say how the check counts tokens.
        """
        counting = {name: value for name, value in (("base", base), ("template", template)) if value is not None}
        send = self._in_parts if path.stat().st_size > WHOLE_BYTES else self._whole
        return send(path, counting, expires_in_seconds, progress)

    def wait_for_processing(self, file_id: str, *, timeout: float = 1800.0) -> FileObject:
        """The file, once its check has ended; ``FileRefusedError`` where a job would refuse it."""
        deadline, pause = time.monotonic() + timeout, FIRST_LOOK
        while (file := self.retrieve(file_id)).status == "uploaded":
            if time.monotonic() + pause > deadline:
                raise NotReachableError(f"the check of {file_id} has not ended after {timeout:g} s: wait for longer")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        if file.status == "error":
            raise FileRefusedError(f"{file.filename} ({file.id}): {file.status_details}")
        return file

    def list(self, *, purpose: str | None = None, limit: int | None = None) -> Iterator[FileObject]:
        """Files of the project, newest first."""
        query = {"purpose": purpose} if purpose else {}
        return self._transport.pages(FileObject, "/files", limit=limit, query=query)

    def retrieve(self, file_id: str) -> FileObject:
        """One file's description."""
        return self._transport.call(FileObject, "GET", f"/files/{segment(file_id)}")

    def delete(self, file_id: str) -> DeletedFile:
        """Remove a file that no open job uses."""
        return self._transport.call(DeletedFile, "DELETE", f"/files/{segment(file_id)}")

    def content(self, file_id: str) -> bytes:
        """A file's bytes, all at once."""
        with self._transport.stream("GET", f"/files/{segment(file_id)}/content") as response:
            return response.read()

    def download(self, file_id: str, path: Path, *, progress: Progress = untold) -> Path:
        """Write a file's bytes to ``path``, which is whole or not there; nothing is held in memory."""
        file = self.retrieve(file_id)
        with self._transport.stream("GET", f"/files/{segment(file_id)}/content") as response:
            return save(response.iter_bytes(), path, num_bytes=file.bytes, sha256=file.sha256, progress=progress)

    def _whole(self, path: Path, form: dict[str, str], life: int | None, progress: Progress) -> FileObject:
        expiry = {"expires_after[anchor]": "created_at", "expires_after[seconds]": str(life)} if life else {}
        with path.open("rb") as file:
            stored = self._transport.call(
                FileObject,
                "POST",
                "/files",
                data={"purpose": "fine-tune", **form, **expiry},
                files={"file": (path.name, file)},
                read_timeout=TRANSFER_SECONDS,
            )
        progress(stored.bytes, stored.bytes)
        return stored

    def _in_parts(self, path: Path, counting: dict[str, str], life: int | None, progress: Progress) -> FileObject:
        size = path.stat().st_size
        request = UploadRequest.model_validate(
            {
                "bytes": size,
                "filename": path.name,
                "mime_type": "application/octet-stream",
                "purpose": "fine-tune",
                "expires_after": ExpiresAfter(anchor="created_at", seconds=life) if life else None,
                **counting,
            }
        )
        upload = self._transport.call(UploadObject, "POST", "/uploads", body=request, is_repeatable=True)
        here = f"/uploads/{upload.id}"
        try:
            completion = self._send_parts(path, here, progress)
            complete = f"{here}/complete"
            done = self._transport.call(
                UploadObject, "POST", complete, body=completion, is_repeatable=True, read_timeout=TRANSFER_SECONDS
            )
        except BaseException:
            with suppress(ClientError):  # the first error is what counts; an upload ends by itself in an hour
                self._transport.call(UploadObject, "POST", f"{here}/cancel", is_repeatable=True)
            raise
        if done.file is None:
            raise FileRefusedError(f"{path.name} was deleted as soon as it was complete: upload it again")
        return done.file

    def _send_parts(self, path: Path, upload: str, progress: Progress) -> UploadCompletion:
        digest, parts, size = hashlib.md5(usedforsecurity=False), list[str](), path.stat().st_size
        sent = 0
        with path.open("rb") as file:
            while piece := file.read(WHOLE_BYTES):
                digest.update(piece)
                part = self._transport.call(
                    UploadPartObject,
                    "POST",
                    f"{upload}/parts",
                    files={"data": piece},
                    is_repeatable=True,
                    read_timeout=TRANSFER_SECONDS,
                )
                parts.append(part.id)
                sent += len(piece)
                progress(sent, size)
        return UploadCompletion(part_ids=parts, md5=digest.hexdigest())
