"""Removes what is over: files at the end of their time, uploads that nobody completed, and what is left of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from sqlalchemy import delete, func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from ibllm_core.contract import layout
from ibllm_core.errors import StorageError
from ibllm_core.storage import ObjectStore
from orchestrator.db.models import File, Upload, UploadPart
from orchestrator.files import rows, uploading

SWEEP_SECONDS = 5.0
log = logging.getLogger(__name__)


class Sweeper:
    """Any number may run side by side. Each step may be cut off, and is done again by whoever comes next.

    Objects are removed by the rows that name them, never because no row does: a database that was restored, or that
    is the wrong one, must not cost anybody their files.
    """

    def __init__(self, sessions: sessionmaker[Session], store: ObjectStore) -> None:
        self._sessions = sessions
        self._store = store

    def run(self, stop: threading.Event) -> None:
        """Sweep every few seconds until ``stop``."""
        while not stop.wait(SWEEP_SECONDS):
            try:
                self.sweep()
            except (OperationalError, StorageError) as error:
                log.error("the sweep is put off: %s", error)

    def sweep(self) -> None:
        """One pass."""
        for step in (self._expire_upload, self._clear_upload, self._remove_file):
            while self._done(step):
                pass

    def _done(self, step: Callable[[Session], bool]) -> bool:
        with self._sessions() as session:
            found = step(session)
            session.commit()
        return found

    def _expire_upload(self, session: Session) -> bool:
        over = select(Upload).where(Upload.status == uploading.PENDING, Upload.expires_at < func.now())
        upload = session.scalar(over.limit(1).with_for_update(skip_locked=True))
        if upload is None:
            return False
        upload.status = uploading.EXPIRED
        return True

    def _clear_upload(self, session: Session) -> bool:
        """Remove an upload's parts, and of one that became no file what may be stored of that."""
        over = select(Upload).where(Upload.status != uploading.PENDING, Upload.cleared_at.is_(None))
        upload = session.scalar(over.order_by(Upload.created_at).limit(1).with_for_update(skip_locked=True))
        if upload is None:
            return False
        for key in self._store.list(f"{layout.upload_parts(upload.id)}/"):
            self._store.delete(key)
        if upload.status != uploading.COMPLETED:
            key = layout.file(rows.id_of(upload.id))
            self._store.drop_unfinished(key)
            self._store.delete(key)
        session.execute(delete(UploadPart).where(UploadPart.upload_id == upload.id))
        upload.cleared_at = func.now()
        return True

    def _remove_file(self, session: Session) -> bool:
        over = select(File).where(File.expires_at < func.now(), ~rows.is_in_use())
        file = session.scalar(over.limit(1).with_for_update(skip_locked=True))
        if file is None:
            return False
        self._store.delete(file.key)
        session.delete(file)
        log.info("%s was removed at the end of its time", file.id)
        return True
