"""Shards on disk, and the arrays that training maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibllm_core.contract.marking import PeoplesAnswers
from ibllm_core.data.dataset import GREY, NO_FEATURE, CompiledSample, Dataset
from ibllm_core.data.mapped import open_mapped
from ibllm_core.data.shards import QuarantineWriter, write_features, write_samples
from ibllm_core.errors import IntegrityError
from ibllm_core.storage import sha256_of

DIM = 6


def random_sample(row: int, rng: np.random.Generator, num_features: int) -> CompiledSample:
    length = int(rng.integers(3, 12))
    cut = int(rng.integers(1, length - 1))
    labels = [(cut, length)] if rng.integers(2) else [(cut, cut + 1), (cut + 1, length)]
    return CompiledSample(
        tokens=rng.integers(0, 100, length).tolist(),
        labels=labels,
        feature=int(rng.integers(NO_FEATURE, num_features)),
        row=row,
        instruction=f"what {row}?",
        answer=f"that {row}",
        media=("image/0",),
        marking=PeoplesAnswers(answers=("that", f"this {row}")) if row % 2 else None,
    )


def write(
    folder: Path, samples: list[CompiledSample], vectors_MVF: np.ndarray, media: list[str], shard_rows: int = 4
) -> dict[str, Any]:
    """Write shards of a few rows each; returns the manifest."""
    for number, start in enumerate(range(0, max(len(samples), 1), shard_rows)):
        write_samples(folder / f"shard-{number:05d}.parquet", samples[start : start + shard_rows])
    for number, start in enumerate(range(0, max(len(media), 1), 3)):
        part = slice(start, start + 3)
        write_features(folder / f"features-{number:05d}.parquet", media[part], vectors_MVF[part])
    with QuarantineWriter(folder / "quarantine.parquet") as quarantine:
        quarantine.add(7, "it is broken")
    return {"files": {path.name: {"sha256": sha256_of(path)} for path in folder.iterdir()}}


def equal(one: Dataset, other: Dataset) -> bool:
    columns = ("tokens_T", "is_label_T", "starts_S", "num_labels_S", "feature_S", "features")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in columns)


@given(st.integers(0, 30), st.integers(1, 8), st.integers(0, 1000))
def test_what_is_written_is_mapped(
    tmp_path_factory: pytest.TempPathFactory, num_samples: int, num_media: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    samples = [random_sample(row, rng, num_media) for row in range(1, num_samples + 1)]
    vectors = rng.standard_normal((num_media, DIM)).astype(np.float16)
    media = [f"image/{number}" for number in range(num_media)]
    folder = tmp_path_factory.mktemp("dataset")
    mapped = open_mapped(folder, write(folder, samples, vectors[:, None], media))
    assert equal(mapped, Dataset.of(samples, vectors, media))
    assert list(mapped.provenance.texts) == list(Dataset.of(samples, vectors, media).provenance.texts)
    assert list(mapped.provenance.media) == media


def test_a_dataset_of_an_earlier_version_has_no_markings(tmp_path: Path) -> None:
    samples = [random_sample(row, np.random.default_rng(row), 1) for row in range(1, 4)]
    write(tmp_path, samples, np.ones((1, 1, DIM)), ["image/a"])
    for path in tmp_path.glob("shard-*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns("marking"), path)
    manifest = {"files": {path.name: {"sha256": sha256_of(path)} for path in tmp_path.iterdir()}}
    mapped = open_mapped(tmp_path, manifest)
    assert [(text.answer, text.marking) for text in mapped.provenance.texts] == [(s.answer, None) for s in samples]


def test_text_alone_needs_no_features(tmp_path: Path) -> None:
    samples = [random_sample(row, np.random.default_rng(row), 0) for row in range(1, 4)]
    mapped = open_mapped(tmp_path, write(tmp_path, samples, np.empty((0, 1, DIM)), []))
    assert (mapped.num_features, mapped.feature_dim) == (0, DIM)
    assert not mapped.has_media_S.any()


def test_views_and_the_grey_picture_are_known(tmp_path: Path) -> None:
    vectors = np.arange(4 * 2 * DIM).reshape(4, 2, DIM).astype(np.float16)
    samples = [random_sample(1, np.random.default_rng(0), 1)]
    mapped = open_mapped(tmp_path, write(tmp_path, samples, vectors, ["image/a", "image/b", "image/c", GREY]))
    assert (mapped.views, mapped.grey, mapped.num_features) == (2, 3, 4)
    np.testing.assert_array_equal(mapped.vectors(np.array([1]), None)[0], vectors[1, 0].astype(np.float32))
    per_epoch = [mapped.vectors(np.array([0, 1]), epoch) for epoch in range(2)]
    assert {float(found[0, 0]) for found in per_epoch} == {float(vectors[0, 0, 0]), float(vectors[0, 1, 0])}
    assert {float(found[1, 0]) for found in per_epoch} == {float(vectors[1, 0, 0]), float(vectors[1, 1, 0])}


def test_a_second_reader_maps_what_the_first_one_wrote(tmp_path: Path) -> None:
    manifest = write(tmp_path, [random_sample(1, np.random.default_rng(0), 1)], np.ones((1, 1, DIM)), ["image/a"])
    open_mapped(tmp_path, manifest)
    written = (tmp_path / "mapped" / "tokens.npy").stat().st_mtime_ns
    assert isinstance(open_mapped(tmp_path, manifest).tokens_T, np.memmap)
    assert (tmp_path / "mapped" / "tokens.npy").stat().st_mtime_ns == written


def test_a_crash_half_way_leaves_nothing_that_is_taken_for_whole(tmp_path: Path) -> None:
    samples = [random_sample(row, np.random.default_rng(row), 1) for row in range(1, 9)]
    manifest = write(tmp_path, samples, np.ones((1, 1, DIM)), ["image/a"])
    (tmp_path / "mapped.part").mkdir()
    (tmp_path / "mapped.part" / "tokens.npy").write_bytes(b"half")
    assert len(open_mapped(tmp_path, manifest)) == 8


@pytest.mark.parametrize("name", ["shard-00000.parquet", "features-00000.parquet", "quarantine.parquet"])
def test_a_file_that_is_not_what_the_manifest_says_is_refused(tmp_path: Path, name: str) -> None:
    manifest = write(tmp_path, [random_sample(1, np.random.default_rng(0), 1)], np.ones((1, 1, DIM)), ["image/a"])
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:20] + b"?" + content[21:])
    with pytest.raises(IntegrityError, match="delete the file"):
        open_mapped(tmp_path, manifest)
