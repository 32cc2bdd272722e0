"""The rows that a run committed, as the dataset's shards: bad rows to quarantine, media numbered, vectors copied in."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from ibllm_core.data.dataset import GREY, NO_FEATURE, CompiledSample
from ibllm_core.data.shards import QUARANTINE, write_features, write_quarantine, write_samples
from ibllm_core.errors import InvalidDataError
from workers.compile.feature_store import FeatureStore
from workers.compile.media_index import MediaIndex
from workers.compile.staging import Staging

SHARD_ROWS = 8192
SHARD_MEDIA = 8192
SHOWN_REASONS = 3


class MediaStates(Protocol):
    """What assembling asks the ledger."""

    def reasons(self, keys: Sequence[str]) -> dict[str, str]:
        """Why media cannot be used."""

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
    ledger: MediaStates
    features: FeatureStore
    folder: Path
    scratch: Path
    views: int
    feature_dim: int

    def assemble(self, grey_VF: np.ndarray | None) -> Counts:
        """Write all shards; ``grey_VF`` is the feature that text-only samples get, None where they have none."""
        index, counts = MediaIndex(self.scratch / "features.sqlite"), Counts()
        bad: list[tuple[int, str]] = []
        samples = self._samples(index, counts, bad, without_media=() if grey_VF is None else (GREY,))
        for number in itertools.count():
            part = list(itertools.islice(samples, SHARD_ROWS))
            if not part and number:
                break
            write_samples(self.folder / f"shard-{number:05d}.parquet", part)
        self._write_features(index, grey_VF)
        write_quarantine(self.folder / QUARANTINE, bad)
        counts.media = len(index)
        return counts

    def _samples(
        self, index: MediaIndex, counts: Counts, bad: list[tuple[int, str]], without_media: tuple[str, ...]
    ) -> Iterator[CompiledSample]:
        for block in self.staging.blocks():
            rows = self.staging.read(block)
            reasons = self.ledger.reasons(sorted({key for row in rows for key in row.media}))
            for row in rows:
                counts.rows += 1
                reason = row.reason or next((reasons[key] for key in row.media if key in reasons), "")
                if reason or row.sample is None:
                    counts.quarantined += 1
                    bad.append((row.row, reason))
                    if len(counts.reasons) < SHOWN_REASONS:
                        counts.reasons.append(f"row {row.row}: {reason}")
                    continue
                counts.samples += 1
                counts.tokens += len(row.sample.tokens)
                counts.text_only += not row.media
                counts.external += row.is_external
                media = row.media or without_media
                yield CompiledSample.of(
                    row.sample,
                    feature=index.number_of(media) if media else NO_FEATURE,
                    row=row.row,
                    instruction=row.instruction,
                    answer=row.answer,
                    media=row.media,
                )

    def _write_features(self, index: MediaIndex, grey_VF: np.ndarray | None) -> None:
        written = 0
        for written, features in enumerate(index.batches(SHARD_MEDIA), start=1):
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


def _mixed(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """The features of a sample's media as one: their mean, of unit length again."""
    if len(vectors) == 1:
        return vectors[0]
    mean = np.mean([vector.astype(np.float32) for vector in vectors], axis=0)
    mixed: np.ndarray = mean / np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), 1e-6)
    return mixed
