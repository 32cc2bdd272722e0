"""Feature vectors of one encoder in the object store, shared by all datasets and never computed twice.

A part is a Parquet shard of features beside a JSON file that lists its keys. The list is written last: a part without
it does not exist.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ibllm_core.contract import layout
from ibllm_core.data.shards import read_features, write_features
from ibllm_core.errors import IntegrityError
from ibllm_core.storage import Store, sha256_of

READ_THREADS = 16


class FeatureStore:
    """The parts of one feature set."""

    def __init__(self, store: Store, feature_set: str) -> None:
        self._store = store
        self._prefix = layout.features(feature_set)

    def parts(self) -> Iterator[tuple[str, list[str]]]:
        """Every part's name with its keys, in order of the names."""
        lists = [key for key in self._store.list(f"{self._prefix}/") if key.endswith(".json")]
        with ThreadPoolExecutor(READ_THREADS) as threads:
            for key, content in zip(lists, threads.map(self._store.get_json, lists), strict=True):
                yield key.removeprefix(f"{self._prefix}/").removesuffix(".json"), content["media"]

    def add(self, keys: Sequence[str], vectors_MVF: np.ndarray) -> str:
        """Write a part and return its name, which follows from its bytes: no other writer can have it half replaced."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "part.parquet"
            write_features(path, keys, vectors_MVF)
            name = f"part-{sha256_of(path)[:32]}"
            with path.open("rb") as file:
                self._store.upload(f"{self._prefix}/{name}.parquet", file)
            self._store.put_json(f"{self._prefix}/{name}.json", {"media": list(keys), "sha256": sha256_of(path)})
        return name

    def fetch(self, part: str, folder: Path) -> np.ndarray:
        """A part's vectors ``[media, V, F]``, mapped from a file that is fetched once into ``folder``."""
        path = folder / f"{part}.npy"
        if not path.exists():
            download = folder / f"{part}.parquet"
            with download.open("wb") as file:
                for chunk in self._store.stream(f"{self._prefix}/{part}.parquet"):
                    file.write(chunk)
            if sha256_of(download) != self._store.get_json(f"{self._prefix}/{part}.json")["sha256"]:
                raise IntegrityError(
                    f"{self._prefix}/{part}.parquet does not have the checksum that was written with it: delete it and "
                    "its .json from the bucket, so that its media are encoded again",
                    key=part,
                )
            np.save(path, np.concatenate([vectors for _, vectors in read_features(download)]))
            download.unlink()
        vectors: np.ndarray = np.load(path, mmap_mode="r")
        return vectors
