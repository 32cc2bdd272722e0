"""Doing something with the store, again while it is away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from ibllm_core.errors import ObjectExistsError, StorageError

RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 20.0)  # and every 20 s from then on
PATIENCE_SECONDS = 1800.0  # a store that was away for longer ends the run
log = logging.getLogger(__name__)
Done = TypeVar("Done")


def persistently(act: Callable[[], Done]) -> Done:
    """What ``act`` returns; its ``StorageError`` after half an hour, ``ObjectExistsError`` at once."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    attempt = 0
    while True:
        try:
            return act()
        except ObjectExistsError:
            raise
        except StorageError as error:
            seconds = RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)]
            if time.monotonic() + seconds > deadline:
                raise
            log.warning("the object store is tried again in %.0f s: %s", seconds, error)
            time.sleep(seconds)
            attempt += 1
