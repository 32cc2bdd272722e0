"""Writing a cache, one batch in memory at a time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from ibllm_core.contract.media import Modality
from ibllm_core.data.shards import feature_shards, read_features
from ibllm_core.errors import InvalidDataError, InvalidSpecError
from ibllm_core.model.visual_cache.manifest import MANIFEST, VECTORS, CacheEncoder, CacheManifest

PICTURE = f"{Modality.IMAGE}/"


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

    Holds a batch at a time, and of every picture the key: about 190 bytes of memory each.
    """
    return build(
        folder,
        feature_batches(datasets.values()),
        encoder=encoder,
        datasets=datasets,
        progress=progress,
    )


def feature_batches(folders: Iterable[Path]) -> Iterator[np.ndarray]:
    """The vectors of the distinct pictures of compiled datasets, ``[rows, dim]`` fp16 at a time, in file order.

    A picture's first stored view stands for it.
    """
    seen: set[str] = set()
    for folder in folders:
        paths = feature_shards(folder)
        if not paths:
            raise InvalidDataError(f"{folder} holds no features of a compiled dataset: compile the dataset again")
        for path in paths:
            for media, vectors_MVF in read_features(path):
                # The grey picture of text-only samples is nobody's, and a mix is no picture.
                is_new = [key.startswith(PICTURE) and key not in seen for key in media]
                seen.update(media)
                if any(is_new):
                    yield vectors_MVF[is_new, 0]


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
