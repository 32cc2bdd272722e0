"""A compiled dataset on disk: token shards beside the feature vectors of the distinct pictures.

``samples.parquet`` has a row a sample (``tokens``, ``prompt_length``, ``feature``, ``row``, ``instruction``,
``answer``), ``features.parquet`` a row a distinct picture (``sha256``, ``vector``). ``feature`` is a row number of the
latter, -1 for a text-only sample.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ibllm_core.data.prompts import TokenisedSample

FORMAT = 2
NO_FEATURE = -1
GREY = "grey"  # stands for a picture's hash where text-only samples see a grey picture
SAMPLES = "samples.parquet"
FEATURES = "features.parquet"


@dataclass(frozen=True, kw_only=True)
class CompiledSample:
    """One sample, ready for packing; ``row`` is its line in the uploaded file, from 1."""

    tokens: list[int]
    prompt_length: int
    feature: int
    row: int
    instruction: str
    answer: str

    @staticmethod
    def of(tokenised: TokenisedSample, *, feature: int, row: int, instruction: str, answer: str) -> CompiledSample:
        """Join what the tokenizer and the encoder found."""
        return CompiledSample(
            tokens=tokenised.tokens,
            prompt_length=tokenised.prompt_length,
            feature=feature,
            row=row,
            instruction=instruction,
            answer=answer,
        )


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset in memory; ``features`` is ``[pictures, feature_dim]`` fp32."""

    samples: list[CompiledSample]
    features: np.ndarray
    feature_hashes: list[str]

    def has_picture(self, index: int) -> bool:
        """Whether a sample has media of its own; the grey picture of the preset ``released`` is none."""
        feature = self.samples[index].feature
        return feature != NO_FEATURE and self.feature_hashes[feature] != GREY

    def lengths(self, media_tokens: int = 0) -> list[int]:
        """Positions that each sample takes in a row: its tokens, and its media's where it has any."""
        return [len(s.tokens) + (media_tokens if s.feature != NO_FEATURE else 0) for s in self.samples]


def dataset_id(
    *,
    file_sha256: str,
    encoder_sha256: str,
    tokenizer_sha256: str,
    template: str,
    row_tokens: int,
    media_tokens: int,
    grey_for_text: bool,
) -> str:
    """Content address: the same input, encoder, tokenizer and settings compile once."""
    identity = json.dumps(
        [FORMAT, file_sha256, encoder_sha256, tokenizer_sha256, template, row_tokens, media_tokens, grey_for_text]
    )
    return "ds-" + hashlib.sha256(identity.encode()).hexdigest()[:32]


def write(folder: Path, dataset: Dataset) -> None:
    """Write both Parquet files of a dataset."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = pa.Table.from_pylist([vars(sample) for sample in dataset.samples])
    pq.write_table(samples, folder / SAMPLES, compression="zstd")
    width = dataset.features.shape[1]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(dataset.features.astype(np.float32).ravel()), width)
    features = pa.table({"sha256": pa.array(dataset.feature_hashes, pa.string()), "vector": vectors})
    pq.write_table(features, folder / FEATURES, compression="zstd")


def read(folder: Path) -> Dataset:
    """Read a dataset that ``write`` wrote."""
    samples = [CompiledSample(**row) for row in pq.read_table(folder / SAMPLES).to_pylist()]
    table = pq.read_table(folder / FEATURES)
    vectors = table["vector"].combine_chunks()
    features = np.asarray(vectors.flatten(), dtype=np.float32).reshape(len(vectors), -1)
    return Dataset(samples=samples, features=features, feature_hashes=table["sha256"].to_pylist())
