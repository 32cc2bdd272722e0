"""The rows that a run committed, as the dataset's shards: bad rows to quarantine, media numbered, vectors copied in."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from ibllm_core.data.dataset import GREY, NO_FEATURE, CompiledSample
from ibllm_core.data.shards import QUARANTINE, QuarantineWriter, write_features, write_samples
from ibllm_core.errors import InvalidDataError
from ibllm_core.model.mixing import mix
from workers.compile.feature_store import FeatureStore
from workers.compile.media_index import MediaIndex
from workers.compile.staging import Staging, consecutive

SHARD_ROWS = 4096
SHARD_BYTES = 8 << 20  # of vectors
SHOWN_REASONS = 3


class MediaPlaces(Protocol):
    """What assembling asks the ledger."""

    def places(self, keys: Sequence[str]) -> list[tuple[str, int]]:
        """Where media are stored."""


@dataclass
class Counts:
    """What became of the rows of one input."""

    rows: int = 0
    samples: int = 0
    tokens: int = 0
    text_only: int = 0
    external: int = 0
    media: int = 0
    quarantined: int = 0
    reasons: list[str] = field(default_factory=list)  # the first few

    def refuse_if_too_bad(self, location: str, limit: float, quarantine: str) -> None:
        """``InvalidDataError`` above the stated share of bad rows, and where nothing can be used at all."""
        if self.samples and self.quarantined <= limit * self.rows:
            return
        reasons = "; ".join(self.reasons) or "it has no rows"
        raise InvalidDataError(
            f"{self.quarantined} of {self.rows} rows of {location} cannot be used (limit {limit:.2%}): {reasons}. "
            f"All of them are in {quarantine}; mend them, or raise data.max_bad_share",
        )


@dataclass(frozen=True, kw_only=True)
class Assembler:
    """Writes shards of one input into ``folder``; ``scratch`` is for what is fetched on the way."""

    staging: Staging
    ledger: MediaPlaces
    features: FeatureStore
    folder: Path
    scratch: Path
    views: int
    feature_dim: int

    def assemble(self, grey_VF: np.ndarray | None) -> Counts:
        """Write all shards; ``grey_VF`` is the feature that text-only samples get, None where they have none."""
        index, counts = MediaIndex(self.scratch / "features.sqlite"), Counts()
        with QuarantineWriter(self.folder / QUARANTINE) as quarantine:
            samples = self._samples(index, counts, quarantine, without_media=() if grey_VF is None else (GREY,))
            for number in itertools.count():
                part = list(itertools.islice(samples, SHARD_ROWS))
                if not part and number:
                    break
                write_samples(self.folder / f"shard-{number:05d}.parquet", part)
        self._write_features(index, grey_VF)
        counts.media = len(index)
        return counts

    def _samples(
        self, index: MediaIndex, counts: Counts, quarantine: QuarantineWriter, without_media: tuple[str, ...]
    ) -> Iterator[CompiledSample]:
        for block in consecutive(self.staging.blocks()):
            for row in self.staging.read(block):
                counts.rows += 1
                counts.external += row.is_external
                if row.sample is None:
                    counts.quarantined += 1
                    quarantine.add(row.row, row.reason)
                    if len(counts.reasons) < SHOWN_REASONS:
                        counts.reasons.append(f"row {row.row}: {row.reason}")
                    continue
                counts.samples += 1
                counts.tokens += len(row.sample.tokens)
                counts.text_only += not row.media
                media = row.media or without_media
                yield CompiledSample(
                    tokens=row.sample.tokens,
                    labels=row.sample.labels,
                    feature=index.number_of(media) if media else NO_FEATURE,
                    row=row.row,
                    instruction=row.instruction,
                    answer=row.answer,
                    marking=row.marking,
                    media=row.media,
                )

    def _write_features(self, index: MediaIndex, grey_VF: np.ndarray | None) -> None:
        written = 0
        media_a_shard = max(1, SHARD_BYTES // (2 * self.views * self.feature_dim))
        for written, features in enumerate(index.batches(media_a_shard), start=1):
            wanted = sorted({key for _, media in features for key in media if key != GREY})
            vectors = dict(zip(wanted, self._vectors(wanted), strict=True))
            if grey_VF is not None:
                vectors[GREY] = grey_VF
            rows = np.stack([_mixed([vectors[key] for key in media]) for _, media in features])
            write_features(self.folder / f"features-{written - 1:05d}.parquet", [key for key, _ in features], rows)
        if not written:
            empty = np.empty((0, self.views, self.feature_dim))
            write_features(self.folder / "features-00000.parquet", [], empty)

    def _vectors(self, keys: Sequence[str]) -> Iterator[np.ndarray]:
        """Stored vectors ``[V, F]``, each part fetched once."""
        for part, place in self.ledger.places(keys):
            yield np.array(self.features.fetch(part, self.scratch)[place])


def _mixed(vectors_VF: Sequence[np.ndarray]) -> np.ndarray:
    """The features of a sample's media as one."""
    return vectors_VF[0] if len(vectors_VF) == 1 else mix([torch.from_numpy(v) for v in vectors_VF]).numpy()
