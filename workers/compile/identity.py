"""What a compiled dataset depends on, and the names that follow from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from ibllm_core.contract.media import Modality

FORMAT = 4  # counts up whenever the same input gives other shards
FEATURES_FORMAT = 3  # counts up whenever a medium gives other features


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything beside the data itself that a dataset depends on."""

    encoder_sha256: str
    tokenizer_sha256: str
    template: str
    row_tokens: int
    context: int
    media_tokens: int
    grey_for_text: bool
    views: int

    def hash_with(self, source_fingerprint: str, max_bad_share: float) -> str:
        """One hash for these settings with this input, and for how bad it may be: what that allowed is not found again
        where less is allowed."""
        return _hash([FORMAT, source_fingerprint, max_bad_share, asdict(self)])

    @property
    def feature_set(self) -> str:
        """Name of the features that this encoder gives with this number of views."""
        return "fs-" + _hash([FEATURES_FORMAT, self.encoder_sha256, self.views])[:32]

    def dataset_id(self, file_hashes: Mapping[str, str]) -> str:
        """Content address: shards of the same bytes are the same dataset, wherever their rows came from."""
        return "ds-" + _hash([FORMAT, asdict(self), dict(file_hashes)])[:32]


def media_key(modality: Modality, content: bytes) -> str:
    """The key of one medium in the feature store."""
    return f"{modality}/{hashlib.sha256(content).hexdigest()}"


def mix_key(keys: tuple[str, ...]) -> str:
    """The key of the mix of several media, whatever their order."""
    return f"mix/{_hash(sorted(keys))}"


def crop_seed(key: str, view: int) -> int | None:
    """The seed of a stored view's random crop; the first view is the transform of evaluation."""
    return int(_hash([key, view])[:15], 16) if view else None


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
