"""A compiled dataset from a node's cache, as arrays that are mapped and not loaded.

Parquet is for keeping and for others to read; it cannot be mapped. So the first reader on a node writes the columns out
once, checked against the manifest, and everybody maps these.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ibllm_core.contract import layout
from ibllm_core.data.dataset import GREY, Dataset
from ibllm_core.data.shards import OnDisk, feature_shards, read_features, sample_shards
from ibllm_core.errors import IntegrityError
from ibllm_core.storage import Store, sha256_of

COLUMNS = ("tokens", "is_label", "starts", "num_labels", "feature", "features")


def open_compiled(store: Store, dataset_id: str, cache: Path) -> Dataset:
    """A dataset by its id, through the node's cache; several processes of a node share one copy.

    ``IntegrityError`` names the shard that is not what its manifest says.
    """
    prefix = layout.dataset(dataset_id)
    folder = cache / prefix
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder, "download"):
        store.download_folder(prefix, cache)
    return open_mapped(folder, store.manifest(prefix))


def open_mapped(folder: Path, manifest: dict[str, Any]) -> Dataset:
    """A dataset in a folder that holds its shards; the columns beside them are made at the first call."""
    mapped = folder / "mapped"
    with _locked(folder, "map"):
        if not mapped.exists():
            _check(folder, manifest)
            _write_columns(folder, mapped)
    info = json.loads((mapped / "info.json").read_text())
    columns = {name: np.load(mapped / f"{name}.npy", mmap_mode="r") for name in COLUMNS}
    return Dataset(
        tokens_T=columns["tokens"],
        is_label_T=columns["is_label"],
        starts_S=columns["starts"],
        num_labels_S=columns["num_labels"],
        feature_S=columns["feature"],
        features=columns["features"],
        views=info["views"],
        grey=info["grey"],
        provenance=OnDisk(folder=folder),
    )


def _check(folder: Path, manifest: dict[str, Any]) -> None:
    for name, expected in manifest["files"].items():
        if sha256_of(folder / name) != expected["sha256"]:
            raise IntegrityError(
                f"{folder / name} does not have the checksum of its dataset's manifest: delete the file, so that it is "
                "fetched again; if that fails too, compile the dataset again",
                key=name,
            )


def _write_columns(folder: Path, target: Path) -> None:
    unfinished = target.with_name(target.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    _write_samples(folder, unfinished)
    info = _write_features(folder, unfinished)
    (unfinished / "info.json").write_text(json.dumps(info))
    unfinished.rename(target)


def _write_samples(folder: Path, target: Path) -> None:
    paths = sample_shards(folder)
    num_samples = sum(pq.read_metadata(path).num_rows for path in paths)
    lengths = np.empty(num_samples, dtype=np.int64)
    features = np.empty(num_samples, dtype=np.int32)
    num_labels = np.empty(num_samples, dtype=np.int32)
    row = 0
    raw = target / "tokens.raw", target / "is_label.raw"
    with raw[0].open("wb") as tokens, raw[1].open("wb") as is_label:
        for path in paths:
            for batch in pq.ParquetFile(path).iter_batches(columns=["tokens", "label_starts", "label_ends", "feature"]):
                part = slice(row, row + len(batch))
                sizes = np.diff(np.asarray(batch["tokens"].offsets))
                lengths[part], features[part] = sizes, np.asarray(batch["feature"])
                mask, num_labels[part] = _mask(batch, sizes)
                tokens.write(np.asarray(batch["tokens"].flatten(), dtype=np.int32).data)
                is_label.write(mask.data)
                row += len(batch)
    starts = np.zeros(num_samples + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    np.save(target / "starts.npy", starts)
    np.save(target / "num_labels.npy", num_labels)
    np.save(target / "feature.npy", features)
    for path, dtype in zip(raw, (np.int32, np.bool_), strict=True):
        _to_npy(path, np.dtype(dtype))


def _mask(batch: Any, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens of a batch are labels, and how many of each sample."""
    first = np.cumsum(sizes) - sizes
    spans = np.diff(np.asarray(batch["label_starts"].offsets))
    owner = np.repeat(np.arange(len(sizes)), spans)
    starts = np.asarray(batch["label_starts"].flatten()) + first[owner]
    ends = np.asarray(batch["label_ends"].flatten()) + first[owner]
    edges = np.zeros(sizes.sum() + 1, dtype=np.int8)
    edges[starts] += 1
    np.subtract.at(edges, ends, 1)  # a span may begin where another ends
    mask = np.cumsum(edges[:-1]).astype(bool)
    counts = np.bincount(owner, weights=ends - starts, minlength=len(sizes)).astype(np.int32)
    return mask, counts


def _write_features(folder: Path, target: Path) -> dict[str, int | None]:
    """Write all vectors as ``[M * V, F]``; returns the number of views, and which of the media is the grey picture."""
    paths = feature_shards(folder)
    num_media = sum(pq.read_metadata(path).num_rows for path in paths)
    schema = pq.read_schema(paths[0])
    views = int(schema.metadata[b"views"])
    shape = (num_media * views, schema.field("vectors").type.list_size // views)
    if not num_media:  # nothing of no bytes can be mapped
        np.save(target / "features.npy", np.empty(shape, dtype=np.float16))
        return {"views": views, "grey": None}
    out = np.lib.format.open_memmap(target / "features.npy", mode="w+", dtype=np.float16, shape=shape)
    row, grey = 0, None
    for path in paths:
        for media, vectors in read_features(path):
            out[row * views : (row + len(media)) * views] = vectors.reshape(-1, shape[1])
            grey = row + media.index(GREY) if GREY in media else grey
            row += len(media)
    out.flush()
    return {"views": views, "grey": grey}


def _to_npy(raw: Path, dtype: np.dtype[Any]) -> None:
    """Give a file of bare numbers the header of numpy's format."""
    count = raw.stat().st_size // dtype.itemsize
    path = raw.with_suffix(".npy")
    with path.open("wb") as target, raw.open("rb") as source:
        np.lib.format.write_array_header_1_0(
            target, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
        )
        shutil.copyfileobj(source, target, 1 << 20)
    raw.unlink()


@contextmanager
def _locked(folder: Path, what: str) -> Iterator[None]:
    with (folder / f".{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
