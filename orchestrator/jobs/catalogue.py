"""What the object store has for jobs to name: base models and encoders."""

from __future__ import annotations

import threading
import time
from functools import cache
from importlib.metadata import entry_points

from ibllm_core.contract import layout
from ibllm_core.contract.job_spec import IMAGEBIND
from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.names import checked_key
from ibllm_core.storage import ObjectStore
from orchestrator.errors import InvalidRequestError

FRESH_SECONDS = 60.0


class Catalogue:
    """Bases and encoders by name. What was found is remembered for a minute: a base is there for good."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._seen: dict[str, float] = {}
        self._lock = threading.Lock()

    def require_base(self, name: str, *, param: str) -> None:
        """``InvalidRequestError`` where there is no base of that name."""
        if not self._has(layout.base(name)):
            raise InvalidRequestError(
                f"there is no base model {name!r} in the object store: bring it in with `ibllm import-base`",
                param=param,
                code="model_not_found",
            )

    def require_encoder(self, name: str, *, param: str) -> None:
        """``InvalidRequestError`` for an encoder that is not installed, or whose weights everybody has to bring."""
        if name not in _installed():
            raise InvalidRequestError(
                f"there is no encoder {name!r}: choose one of {', '.join(sorted(_installed()))}",
                param=param,
                code="encoder_not_found",
            )
        if name == IMAGEBIND and not self._has(layout.encoder(IMAGEBIND)):
            raise InvalidRequestError(
                "ImageBind's weights are not in the object store, and this project may not ship them: bring them in "
                "with `ibllm import-encoder imagebind imagebind_huge.pth`, or choose another encoder",
                param=param,
                code="encoder_not_found",
            )

    def bases(self) -> list[str]:
        """The names of all bases."""
        root = layout.base("")
        ending = layout.manifest("")
        return [
            key.removeprefix(root).removesuffix(ending)
            for key in self._store.list(root)
            if key.endswith(ending) and key.count("/") == root.count("/") + 1
        ]

    def _has(self, prefix: str) -> bool:
        now = time.monotonic()
        with self._lock:
            if now - self._seen.get(prefix, -FRESH_SECONDS) < FRESH_SECONDS:
                return True
        try:
            found = self._store.exists(layout.manifest(checked_key(prefix)))
        except InvalidDataError:  # what cannot be a key names nothing
            return False
        if found:
            with self._lock:
                self._seen[prefix] = now
        return found


@cache
def _installed() -> frozenset[str]:
    return frozenset(point.name for point in entry_points(group="ibllm.encoders"))
