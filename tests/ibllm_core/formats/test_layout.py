"""Which files of a folder are the dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.layout import data_files
from ibllm_core.formats.sources import LocalSource


def folder_of(tmp_path: Path, names: list[str]) -> LocalSource:
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    return LocalSource(root=tmp_path)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.json", "images/1.jpg", "README.md"], ["a.json"]),
        (["s-0.jsonl", "s-1.jsonl", "s-10.jsonl"], ["s-0.jsonl", "s-1.jsonl", "s-10.jsonl"]),
        (["train.jsonl", "test.jsonl", "other.jsonl"], ["train.jsonl"]),
        (["data.jsonl", "validation.jsonl"], ["data.jsonl"]),
        (["test.jsonl", "README.md"], ["test.jsonl"]),
        (["testimonies.jsonl", "test.jsonl"], ["testimonies.jsonl"]),
        (["Train_GCC-training.tsv", "Validation_GCC-1.1.0-Validation.tsv"], ["Train_GCC-training.tsv"]),
        (["data/train-0-of-2.parquet", "data/train-1-of-2.parquet", "data/test-0-of-1.parquet"],
         ["data/train-0-of-2.parquet", "data/train-1-of-2.parquet"]),
        (["00000.tar", "00000.parquet", "00000_stats.json", "00001.tar"], ["00000.tar", "00001.tar"]),
        (["metadata.csv", "labels.csv", "1.png"], ["metadata.csv"]),
        (["train/metadata.jsonl", "validation/metadata.jsonl"], ["train/metadata.jsonl"]),
        (["dataset_infos.json", "a.jsonl", "config.json"], ["a.jsonl"]),
        (["state.json", "data-00000-of-00001.arrow", "cache-1.arrow"], ["data-00000-of-00001.arrow"]),
        (["train/state.json", "train/data-00000-of-00001.arrow", "test/state.json"],
         ["train/data-00000-of-00001.arrow"]),
    ],
)  # fmt: skip
def test_the_files_of_a_dataset(tmp_path: Path, names: list[str], expected: list[str]) -> None:
    assert data_files(folder_of(tmp_path, names)) == expected


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["a.json", "b.json"], r"holds 2 datasets, such as 'a\.json' and 'b\.json': give one of the files"),
        (["en/train-0.parquet", "fr/train-0.parquet"], "holds 2 datasets"),
        (["validation.jsonl", "test.jsonl"], "holds 2 datasets"),
        (
            ["cat/1.jpg", "dog/1.jpg"],
            "holds no file of rows .*add metadata.jsonl, metadata.csv with file_name and text",
        ),
        ([], "holds no file of rows"),
        (["a/state.json", "b/state.json"], "holds 2 saved datasets"),
        (["state.json", "README.md"], "lacks 'data-00000-of-00001.arrow', which state.json names"),
    ],
)
def test_a_folder_that_is_no_dataset(tmp_path: Path, names: list[str], reason: str) -> None:
    with pytest.raises(InvalidDataError, match=reason):
        data_files(folder_of(tmp_path, names))


@pytest.mark.parametrize("state", ["{", "[]", '{"_data_files": [3]}', '{"_data_files": 3}'])
def test_a_state_that_save_to_disk_did_not_write(tmp_path: Path, state: str) -> None:
    source = folder_of(tmp_path, ["state.json", "data-00000-of-00001.arrow"])
    (tmp_path / "state.json").write_text(state)
    with pytest.raises(InvalidDataError, match=r"is not what datasets\.save_to_disk writes"):
        data_files(source)
