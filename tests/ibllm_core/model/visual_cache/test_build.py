from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ibllm_core.data import shards
from ibllm_core.data.dataset import GREY
from ibllm_core.data.shards import write_features
from ibllm_core.errors import InvalidDataError, InvalidSpecError
from ibllm_core.model.visual_cache import build as building
from ibllm_core.model.visual_cache.build import build, build_from_datasets, feature_batches
from ibllm_core.model.visual_cache.cache import VisualCache
from tests.ibllm_core.model.visual_cache.caches import ENCODER, drawn, made, stored


def test_a_cache_comes_back_from_disk(tmp_path: Path) -> None:
    vectors = drawn(10, 6) * 7
    told: list[int] = []
    built = build(
        tmp_path, [vectors[:4], vectors[4:4], vectors[4:]], datasets=["ds-1"], progress=told.append, encoder=ENCODER
    )
    cache = VisualCache.open(tmp_path)
    assert cache.manifest == built
    assert (built.count, built.dim, built.encoder, built.datasets) == (10, 6, ENCODER, ("ds-1",))
    assert told == [4, 4, 10]
    raw = (tmp_path / "vectors.f16").read_bytes()
    assert raw == stored(vectors).astype("<f2").tobytes()
    assert built.sha256 == hashlib.sha256(raw).hexdigest()
    np.testing.assert_array_equal(cache.vectors.double().numpy(), stored(vectors))
    cache.verify()


@pytest.mark.parametrize("length", [1e-30, 1e30])
def test_vectors_of_any_length_are_brought_to_length_1(tmp_path: Path, length: float) -> None:
    cache = made(tmp_path, drawn(5, 6) * np.float32(length))
    torch.testing.assert_close(cache.vectors.float().norm(dim=1), torch.ones(5), atol=1e-3, rtol=0)


def die() -> None:
    raise KeyboardInterrupt


def test_a_crash_before_the_manifest_leaves_no_cache(tmp_path: Path) -> None:
    vectors = drawn(10, 6)
    with mock.patch.object(building.os, "fsync", lambda _: die()), pytest.raises(KeyboardInterrupt):
        build(tmp_path, [vectors], encoder=ENCODER)
    assert (tmp_path / "vectors.f16").stat().st_size == 10 * 6 * 2
    with pytest.raises(InvalidDataError, match="is no visual cache"):
        VisualCache.open(tmp_path)
    assert made(tmp_path, vectors[:7]).manifest.count == 7


def test_a_crash_while_the_manifest_is_written_leaves_no_cache(tmp_path: Path) -> None:
    with mock.patch.object(building.Path, "replace", lambda *_: die()), pytest.raises(KeyboardInterrupt):
        build(tmp_path, [drawn(3, 2)], encoder=ENCODER)
    with pytest.raises(InvalidDataError, match="is no visual cache"):
        VisualCache.open(tmp_path)


def test_building_reads_one_batch_at_a_time(tmp_path: Path) -> None:
    sizes: list[int] = []

    def batches() -> Iterator[np.ndarray]:
        for seed in range(3):
            yield drawn(1000, 64, seed=seed)
            sizes.append((tmp_path / "vectors.f16").stat().st_size)

    build(tmp_path, batches(), encoder=ENCODER)
    assert sizes == [128_000, 256_000, 384_000]


def with_element(value: float) -> np.ndarray:
    vectors = drawn(6, 4)
    vectors[4, 2] = value
    return vectors


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "at least one vector"),
        ([np.empty((0, 4), np.float32)], "at least one vector"),
        ([drawn(3, 4), with_element(np.nan)], "vector 7 is not finite"),
        ([with_element(-np.inf)], "vector 4 is not finite"),
        ([drawn(3, 4), np.zeros((1, 4), np.float32)], "vector 3 is zero"),
        ([drawn(3, 4), drawn(3, 5)], r"vector 3 on has shape \[3, 5\], but must have \[rows, 4\]"),
        ([drawn(4)], r"has shape \[4\]"),
        ([np.empty((3, 0), np.float32)], r"has shape \[3, 0\]"),
    ],
)
def test_unusable_vectors_are_refused_and_leave_no_cache(
    tmp_path: Path, batches: list[np.ndarray], message: str
) -> None:
    with pytest.raises(InvalidDataError, match=message):
        build(tmp_path, batches, encoder=ENCODER)
    assert not (tmp_path / "cache.json").exists()


def test_a_cache_is_not_overwritten(tmp_path: Path) -> None:
    before = made(tmp_path, drawn(3, 4)).vectors.clone()
    with pytest.raises(InvalidSpecError, match="holds a visual cache already"):
        build(tmp_path, [drawn(5, 4, seed=1)], encoder=ENCODER)
    assert torch.equal(VisualCache.open(tmp_path).vectors, before)


def change_manifest(folder: Path, **changes: Any) -> None:
    path = folder / "cache.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut_vectors(folder: Path) -> None:
    os.truncate(folder / "vectors.f16", 11)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "cache.json").unlink(), "is no visual cache: it has no cache.json"),
        (lambda folder: (folder / "cache.json").write_text("{"), "not understood"),
        (lambda folder: change_manifest(folder, format=2), "format: Input should be 1"),
        (lambda folder: change_manifest(folder, count=0), "count: "),
        (lambda folder: change_manifest(folder, surprise=1), "surprise: "),
        (lambda folder: change_manifest(folder, count=4), "has 24 bytes, but .* are 32 bytes"),
        (lambda folder: (folder / "vectors.f16").unlink(), "vectors.f16 is missing"),
        (cut_vectors, "vectors.f16 has 11 bytes"),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    made(tmp_path, drawn(3, 4))
    damage(tmp_path)
    with pytest.raises(InvalidDataError, match=message):
        VisualCache.open(tmp_path)


def test_verify_notices_a_changed_byte(tmp_path: Path) -> None:
    made(tmp_path, drawn(3, 4))
    raw = bytearray((tmp_path / "vectors.f16").read_bytes())
    raw[5] ^= 1
    (tmp_path / "vectors.f16").write_bytes(raw)
    with pytest.raises(InvalidDataError, match="has sha256"):
        VisualCache.open(tmp_path).verify()


# --- compiled datasets ---


def dataset(folder: Path, vectors: np.ndarray, numbers: list[int]) -> Path:
    folder.mkdir()
    write_features(folder / FEATURES, [f"image/{number:064x}" for number in numbers], vectors[:, None])
    return folder


def test_datasets_are_joined_and_a_picture_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "READ_ROWS", 3)
    first, second = drawn(7, 4), drawn(6, 4, seed=1)
    folders = {
        "ds-a": dataset(tmp_path / "a", first, [0, 1, 2, 3, 4, 5, 6]),
        "ds-b": dataset(tmp_path / "b", second, [2, 3, 4, 7, 0, 8]),
    }
    assert [len(batch) for batch in feature_batches(folders.values())] == [3, 3, 1, 2]
    manifest = build_from_datasets(tmp_path / "cache", folders, encoder=ENCODER)
    assert manifest.datasets == ("ds-a", "ds-b")
    expected = stored(np.concatenate([first, second[[3, 5]]]).astype(np.float16))
    np.testing.assert_array_equal(VisualCache.open(tmp_path / "cache").vectors.double().numpy(), expected)


def write_table(columns: dict[str, Any], views: str = "1") -> Callable[[Path], None]:
    return lambda path: pq.write_table(pa.table(columns).replace_schema_metadata({"views": views}), path)


PAIRS = pa.list_(pa.float16(), 2)
KEYS = ["image/00", "image/01"]
FEATURES = "features-00000.parquet"


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda path: path.write_bytes(b"PAR1"),
        lambda path: pq.write_table(pa.table({"media": KEYS}), path),
        write_table({"media": KEYS}),
        write_table({"media": ["image/00", None], "vectors": pa.array([[1, 2], [3, 4]], PAIRS)}),
        write_table({"media": KEYS, "vectors": pa.array([[1, 2], None], PAIRS)}),
        write_table({"media": KEYS, "vectors": pa.array([[1, 2], [3, 4]], PAIRS)}, views="three"),
        write_table({"media": KEYS, "vectors": pa.array([[1, 2], [3, 4]], pa.list_(pa.float32(), 2))}),
        write_table({"media": KEYS, "vectors": pa.array([[1, 2, 3], [4]], pa.list_(pa.float16()))}),
    ],
)
def test_a_damaged_dataset_is_refused(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    folder = dataset(tmp_path / "ds", drawn(2, 2), [0, 1])
    damage(folder / FEATURES)
    with pytest.raises(InvalidDataError, match=r"compile the dataset again"):
        build_from_datasets(tmp_path / "cache", {"ds": folder}, encoder=ENCODER)


def test_datasets_of_two_encoders_are_refused(tmp_path: Path) -> None:
    folders = {
        "a": dataset(tmp_path / "a", drawn(2, 3), [0, 1]),
        "b": dataset(tmp_path / "b", drawn(2, 4), [2, 3]),
    }
    with pytest.raises(InvalidDataError, match=r"shape \[2, 4\], but must have \[rows, 3\]"):
        build_from_datasets(tmp_path / "cache", folders, encoder=ENCODER)


# --- enhance ---


def test_the_grey_picture_of_text_only_samples_is_left_out(tmp_path: Path) -> None:
    vectors = drawn(5, 4)
    (tmp_path / "ds").mkdir()
    media = ["image/00", "image/01", "mix/02", "audio/03", GREY]
    write_features(tmp_path / "ds" / FEATURES, media, vectors[:, None])
    assert build_from_datasets(tmp_path / "cache", {"ds": tmp_path / "ds"}, encoder=ENCODER).count == 2


def test_a_pictures_first_view_stands_for_it(tmp_path: Path) -> None:
    views = drawn(6, 4).reshape(3, 2, 4)
    (tmp_path / "ds").mkdir()
    write_features(tmp_path / "ds" / FEATURES, [f"image/{number}" for number in range(3)], views)
    (batch,) = feature_batches([tmp_path / "ds"])
    np.testing.assert_array_equal(batch, views[:, 0].astype(np.float16))
