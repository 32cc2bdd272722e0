"""A compiled dataset on disk: Parquet shards of samples, and of the feature vectors of distinct media.

``shard-*.parquet`` has a row a sample, in the order of the dataset: ``tokens``, ``label_starts`` and ``label_ends``,
``feature`` (a row number of the features, -1 for text alone), and its provenance: ``row``, ``media``, ``instruction``,
``answer``, ``marking`` (JSON, or null). ``features-*.parquet`` has a row a distinct medium: its key in ``media`` and
``vectors``, its stored views one after the other in fp16. ``quarantine.parquet`` has ``row`` and ``reason``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ibllm_core.contract.marking import read_marking
from ibllm_core.data.dataset import CompiledSample, SampleText
from ibllm_core.errors import InvalidDataError

QUARANTINE = "quarantine.parquet"
READ_ROWS = 4096
READ_BUFFER_BYTES = 1 << 20

SAMPLES = pa.schema(
    [
        ("tokens", pa.list_(pa.int32())),
        ("label_starts", pa.list_(pa.int32())),
        ("label_ends", pa.list_(pa.int32())),
        ("feature", pa.int32()),
        ("row", pa.int64()),
        ("media", pa.list_(pa.string())),
        ("instruction", pa.string()),
        ("answer", pa.string()),
        ("marking", pa.string()),
    ]
)
TEXTS = ["row", "instruction", "answer", "marking"]
QUARANTINED = pa.schema([("row", pa.int64()), ("reason", pa.string())])


def sample_shards(folder: Path) -> list[Path]:
    """The shards of samples, in order."""
    return sorted(folder.glob("shard-*.parquet"))


def feature_shards(folder: Path) -> list[Path]:
    """The shards of features, in order."""
    return sorted(folder.glob("features-*.parquet"))


def write_samples(path: Path, samples: Sequence[CompiledSample]) -> None:
    """Write one shard of samples."""
    columns = {
        "tokens": [s.tokens for s in samples],
        "label_starts": [[start for start, _ in s.labels] for s in samples],
        "label_ends": [[end for _, end in s.labels] for s in samples],
        "feature": [s.feature for s in samples],
        "row": [s.row for s in samples],
        "media": [list(s.media) for s in samples],
        "instruction": [s.instruction for s in samples],
        "answer": [s.answer for s in samples],
        "marking": [s.marking and s.marking.model_dump_json() for s in samples],
    }
    pq.write_table(pa.table(columns, schema=SAMPLES), path, compression="zstd")


def write_features(path: Path, media: Sequence[str], vectors_MVF: np.ndarray) -> None:
    """Write one shard of features, ``[media, views, F]``."""
    rows = np.ascontiguousarray(vectors_MVF, dtype=np.float16)
    if rows.shape[0] != len(media):
        raise ValueError(f"there are {len(media)} media for {rows.shape[0]} vectors")
    values = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1] * rows.shape[2])
    table = pa.table({"media": pa.array(media, pa.string()), "vectors": values}).replace_schema_metadata(
        {"views": str(rows.shape[1])}
    )
    pq.write_table(table, path, compression="none")  # fp16 of unit vectors does not compress


class QuarantineWriter:
    """Context manager that writes rows that cannot be used, each with its reason; few of them lie in memory."""

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetWriter(path, QUARANTINED, compression="zstd")
        self._rows: list[dict[str, int | str]] = []

    def __enter__(self) -> QuarantineWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._write()
        self._file.close()

    def add(self, row: int, reason: str) -> None:
        """Take one row."""
        self._rows.append({"row": row, "reason": reason})
        if len(self._rows) == READ_ROWS:
            self._write()

    def _write(self) -> None:
        self._file.write_table(pa.Table.from_pylist(self._rows, schema=QUARANTINED))
        self._rows.clear()


def read_features(path: Path) -> Iterator[tuple[list[str], np.ndarray]]:
    """A shard of features in pieces: keys, and vectors ``[media, views, F]`` in fp16.

    ``InvalidDataError`` where the file is not such a shard.
    """
    try:
        # A buffer instead of whole column chunks, which for one row group of a million rows are gigabytes.
        with pq.ParquetFile(path, buffer_size=READ_BUFFER_BYTES, pre_buffer=False) as file:
            views = int(file.schema_arrow.metadata[b"views"])
            for batch in file.iter_batches(batch_size=READ_ROWS):
                vectors = batch["vectors"]
                # flatten() drops nulls.
                if vectors.type != pa.list_(pa.float16(), vectors.type.list_size):
                    raise TypeError(f"its vectors are {vectors.type}")
                if vectors.null_count or batch["media"].null_count:
                    raise TypeError("it has empty cells")
                yield batch["media"].to_pylist(), np.asarray(vectors.flatten()).reshape(len(vectors), views, -1)
    except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidDataError(
            f"{path} cannot be read as the features of a compiled dataset ({error}): compile the dataset again",
            file=str(path),
        ) from error


@dataclass(frozen=True, kw_only=True)
class OnDisk:
    """Provenance that is read from the shards when a report asks for it."""

    folder: Path

    @cached_property
    def texts(self) -> Sequence[SampleText]:
        """Of each sample."""
        return [
            _text(row)
            for path in sample_shards(self.folder)
            # With the schema a column that an earlier version did not write is null.
            for row in pq.read_table(path, columns=TEXTS, schema=SAMPLES).to_pylist()
        ]

    @cached_property
    def media(self) -> Sequence[str]:
        """The key of each feature."""
        return [
            key
            for path in feature_shards(self.folder)
            for key in pq.read_table(path, columns=["media"])["media"].to_pylist()
        ]


def _text(row: dict[str, Any]) -> SampleText:
    return SampleText(**{**row, "marking": read_marking(row["marking"]) if row["marking"] else None})
