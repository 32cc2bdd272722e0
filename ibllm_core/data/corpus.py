"""Several datasets as the one that a stage trains on, each with a weight."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from ibllm_core.data.dataset import NO_FEATURE, Dataset, Gathered, ranges
from ibllm_core.errors import InvalidDataError


class Corpus:
    """Samples and features of all parts, numbered one after the other; nothing is copied until it is asked for.

    ``weights`` say how often an epoch passes over each part: 1 once, 0.5 over half of it (the next epoch over the other
    half), 2 twice.
    """

    def __init__(self, parts: Sequence[Dataset], weights: Sequence[float] | None = None) -> None:
        self.parts = tuple(parts)
        self.weights = (1.0,) * len(parts) if weights is None else tuple(weights)
        dims = {part.feature_dim for part in parts if part.num_features}
        if len(dims) > 1:
            raise InvalidDataError(f"the datasets' features differ in size ({sorted(dims)}): compile with one encoder")
        self.feature_dim = dims.pop() if dims else parts[0].feature_dim
        self._first_sample = np.cumsum([0, *(len(part) for part in parts)])
        self._first_feature = np.cumsum([0, *(part.num_features for part in parts)])

    def __len__(self) -> int:
        return int(self._first_sample[-1])

    @property
    def sizes(self) -> list[int]:
        """Samples of each part."""
        return [len(part) for part in self.parts]

    @cached_property
    def num_labels_S(self) -> np.ndarray:
        """Label tokens of each sample."""
        return np.concatenate([part.num_labels_S for part in self.parts])

    def lengths(self, media_tokens: int = 0) -> np.ndarray:
        """Positions that each sample takes in a row."""
        return np.concatenate([part.lengths(media_tokens) for part in self.parts])

    def gather(self, indices: np.ndarray) -> Gathered:
        """Copy some samples out, in the given order."""
        part_of = np.searchsorted(self._first_sample, indices, side="right") - 1
        found = {int(p): self._gather_part(int(p), indices[part_of == p]) for p in np.unique(part_of)}
        if len(found) == 1:
            return next(iter(found.values()))
        lengths = np.empty(len(indices), dtype=np.int64)
        features = np.empty(len(indices), dtype=np.int64)
        for p, gathered in found.items():
            lengths[part_of == p] = gathered.lengths_S
            features[part_of == p] = gathered.feature_S
        starts = np.cumsum(lengths) - lengths
        tokens = np.empty(lengths.sum(), dtype=np.int32)
        is_label = np.empty(lengths.sum(), dtype=bool)
        for p, gathered in found.items():
            places = ranges(starts[part_of == p], gathered.lengths_S)
            tokens[places] = gathered.tokens_T
            is_label[places] = gathered.is_label_T
        return Gathered(tokens_T=tokens, is_label_T=is_label, lengths_S=lengths, feature_S=features)

    def vectors(self, features: np.ndarray, epoch: int | None) -> np.ndarray:
        """Feature vectors ``[len(features), feature_dim]``, as ``Dataset.vectors``."""
        part_of = np.searchsorted(self._first_feature, features, side="right") - 1
        found = np.empty((len(features), self.feature_dim), dtype=np.float32)
        for p in np.unique(part_of):
            mine = part_of == p
            found[mine] = self.parts[p].vectors(features[mine] - self._first_feature[p], epoch)
        return found

    def _gather_part(self, part: int, indices: np.ndarray) -> Gathered:
        gathered = self.parts[part].gather(indices - self._first_sample[part])
        own = gathered.feature_S
        numbered = np.where(own == NO_FEATURE, NO_FEATURE, own + self._first_feature[part])
        return Gathered(
            tokens_T=gathered.tokens_T,
            is_label_T=gathered.is_label_T,
            lengths_S=gathered.lengths_S,
            feature_S=numbered,
        )
