"""The checker's process: checking is work for a core of its own, which the API must not wait for."""

from __future__ import annotations

import logging
import signal
import sys
import threading

from ibllm_core.settings import StorageSettings
from ibllm_core.storage import ObjectStore
from orchestrator.db.session import connect, session_factory
from orchestrator.files.checker import Checker
from orchestrator.files.sweeper import Sweeper
from orchestrator.settings import ServiceSettings


def main() -> int:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    settings, storage = ServiceSettings(), StorageSettings()
    sessions = session_factory(connect(settings.database_url))
    sweeper = Sweeper(sessions, ObjectStore(storage))
    threading.Thread(target=sweeper.run, args=(stop,), name="sweeper", daemon=True).start()
    Checker(sessions, storage, settings.checker_heartbeat).run(stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
