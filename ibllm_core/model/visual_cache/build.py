"""Writing a cache, one batch in memory at a time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ibllm_core.data.dataset import FEATURES, GREY
from ibllm_core.errors import InvalidDataError, InvalidSpecError
from ibllm_core.model.visual_cache.manifest import MANIFEST, VECTORS, CacheEncoder, CacheManifest

BATCH_ROWS = 4096
READ_BUFFER_BYTES = 1 << 20


def build(
    folder: Path,
    batches: Iterable[np.ndarray],
    *,
    encoder: CacheEncoder,
    datasets: Iterable[str] = (),
    progress: Callable[[int], None] | None = None,
) -> CacheManifest:
    """Write the vectors of ``batches``, each ``[rows, dim]``, at length 1; ``cache.json`` comes last.

    ``progress`` is told the number of vectors written so far, after each batch. Raises ``InvalidDataError`` for a
    vector that is zero or not finite, for differing widths and for no vectors at all, and ``InvalidSpecError`` where
    ``folder`` holds a cache already.
    """
    if (folder / MANIFEST).exists():
        raise InvalidSpecError(f"{folder} holds a visual cache already: choose another folder, or delete this one")
    folder.mkdir(parents=True, exist_ok=True)
    count, dim = 0, None
    digest = hashlib.sha256()
    with (folder / VECTORS).open("wb") as file:
        for batch in batches:
            dim = _checked_width(batch, dim, first_row=count)
            stored = _unit_rows(batch, first_row=count).astype("<f2")
            file.write(stored.data)
            digest.update(stored.data)
            count += len(stored)
            if progress:
                progress(count)
        file.flush()
        os.fsync(file.fileno())
    if not count or dim is None:
        raise InvalidDataError("a visual cache needs at least one vector: give batches that hold some")
    manifest = CacheManifest(
        count=count,
        dim=dim,
        encoder=encoder,
        datasets=tuple(datasets),
        sha256=digest.hexdigest(),
    )
    unfinished = folder / f"{MANIFEST}.part"
    unfinished.write_text(manifest.model_dump_json(indent=2) + "\n")
    unfinished.replace(folder / MANIFEST)
    return manifest


def build_from_datasets(
    folder: Path,
    datasets: Mapping[str, Path],
    *,
    encoder: CacheEncoder,
    progress: Callable[[int], None] | None = None,
) -> CacheManifest:
    """``build`` from compiled datasets, given as id and folder; a picture that several of them have counts once.

    Holds a batch at a time, and of every picture the hash: about 130 bytes of memory each.
    """
    return build(
        folder,
        feature_batches(datasets.values()),
        encoder=encoder,
        datasets=datasets,
        progress=progress,
    )


def feature_batches(folders: Iterable[Path]) -> Iterator[np.ndarray]:
    """The vectors of the distinct pictures of compiled datasets, ``[rows, dim]`` fp32 at a time, in file order."""
    seen: set[bytes] = set()
    for folder in folders:
        path = folder / FEATURES
        try:
            # A buffer instead of whole column chunks, which for one row group of a million rows are 4 GB.
            with pq.ParquetFile(path, buffer_size=READ_BUFFER_BYTES, pre_buffer=False) as parquet:
                for batch in parquet.iter_batches(batch_size=BATCH_ROWS, columns=["sha256", "vector"]):
                    is_new = [_first_time(value, seen) for value in batch["sha256"].to_pylist()]
                    if any(is_new):
                        yield _to_numpy(batch["vector"])[is_new]
        except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
            raise InvalidDataError(
                f"{path} cannot be read as the features of a compiled dataset ({error}): compile the dataset again",
                file=str(path),
            ) from error


def _first_time(sha256: str, seen: set[bytes]) -> bool:
    """Whether a picture is a new one; the grey one that text-only samples see is nobody's."""
    if sha256 == GREY:
        return False
    key = bytes.fromhex(sha256)
    is_new = key not in seen
    seen.add(key)
    return is_new


def _to_numpy(column: Any) -> np.ndarray:
    # flatten() drops nulls, and vectors of differing lengths come out ragged: reshape refuses most of these, not all.
    if column.null_count or not pa.types.is_fixed_size_list(column.type):
        raise TypeError(f"its vectors are {column.type} with {column.null_count} nulls")
    return np.asarray(column.flatten(), dtype=np.float32).reshape(len(column), column.type.list_size)


def _checked_width(batch: np.ndarray, dim: int | None, *, first_row: int) -> int:
    if batch.ndim != 2 or not batch.shape[1] or (dim is not None and batch.shape[1] != dim):
        raise InvalidDataError(
            f"the batch from vector {first_row} on has shape {list(batch.shape)}, but must have "
            f"[rows, {dim or 'dim'}]: a cache holds the features of one encoder"
        )
    width: int = batch.shape[1]
    return width


def _unit_rows(batch: np.ndarray, *, first_row: int) -> np.ndarray:
    vectors = np.ascontiguousarray(batch, dtype=np.float32)
    # By the largest element first, so that no square overflows or vanishes.
    peaks = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
    unusable = np.flatnonzero(~(np.isfinite(peaks) & (peaks > 0)))
    if unusable.size:
        kind = "zero" if peaks[unusable[0]] == 0 else "not finite"
        raise InvalidDataError(f"vector {first_row + unusable[0]} is {kind}: encode its picture again or leave it out")
    scaled = vectors / peaks
    unit: np.ndarray = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    return unit
