"""The scheduler's process: one leader by advisory lock, a pass every half second."""

from __future__ import annotations

import logging
import signal
import sys
import threading

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from ibllm_core.settings import StorageSettings
from ibllm_core.storage import ObjectStore
from orchestrator.cluster.ray_cluster import RayCluster
from orchestrator.db.session import connect, session_factory
from orchestrator.jobs.prepare import shop_of
from orchestrator.outbox.webhooks import webhook_courier
from orchestrator.registry.mlflow_registry import Registry
from orchestrator.registry.tracker import Tracker
from orchestrator.scheduler.effects import World
from orchestrator.scheduler.log_keeper import LogKeeper
from orchestrator.scheduler.reconciler import Reconciler
from orchestrator.settings import ServiceSettings

PASS_SECONDS = 0.5
LEADER_LOCK = 0x1B11_0001  # any number that nothing else in the database locks
log = logging.getLogger(__name__)


def main() -> int:
    """Run until SIGTERM; a second scheduler waits for the lock, and takes over when the first one goes."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # else a line for each look whether the API is there
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    settings = ServiceSettings()
    engine = connect(settings.database_url)
    world = World(
        ray=RayCluster(settings.ray_dashboard_url, sys.executable),
        shop=shop_of(settings, ObjectStore(StorageSettings())),
        service_url=settings.service_url,
    )
    sessions = session_factory(engine)
    reconciler = Reconciler(sessions, world)
    beside = {
        "tracker": Tracker(sessions, Registry(settings.mlflow_url), world.store).run,
        "webhooks": webhook_courier(sessions, settings).run,
        "logs": LogKeeper(sessions, world).run,
    }
    with engine.connect() as lock:
        while not lock.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": LEADER_LOCK}):
            lock.rollback()
            if stop.wait(PASS_SECONDS):
                return 0
        lock.commit()
        log.info("leading")
        for name, run in beside.items():
            threading.Thread(target=run, args=(stop,), name=name, daemon=True).start()
        while not stop.wait(PASS_SECONDS):
            try:
                lock.scalar(text("SELECT 1"))  # a lost connection is a lost lock
                lock.commit()
                reconciler.run_once()
            except OperationalError as error:
                log.error("the database went away; starting anew: %s", error)
                return 1
            except Exception:
                log.exception("a pass meets a defect; the next one tries again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
