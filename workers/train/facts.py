"""What a training run's inputs say of themselves, before any weights or rows are fetched."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pyarrow.parquet as pq

from ibllm_core.adapter.header import AdapterHeader
from ibllm_core.contract import layout
from ibllm_core.contract.run_spec import TrainSpec
from ibllm_core.errors import InvalidSpecError, InvalidWeightsError, ObjectMissingError
from ibllm_core.planning.base_size import BaseSize, read_size
from ibllm_core.storage import Store
from workers.adapter_source import read_header
from workers.base_manifest import tokenizer_hash, weights_hash

FIRST_FEATURES = "features-00000.parquet"  # every dataset has it, empty where there are no media
GIVE_ANOTHER = "give a finished adapter, or a checkpoint that is still kept"
Read = TypeVar("Read")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One setting that cannot work: its ``path`` in the spec, what is wrong with it, what to do."""

    path: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}: {self.remedy}"


@dataclass(frozen=True, kw_only=True)
class BaseFacts:
    """A base's size and hashes."""

    size: BaseSize
    sha256: str
    tokenizer_sha256: str


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """What a compiled dataset's manifest says; ``weight`` is how often an epoch passes over it, 0 for validation."""

    dataset: str
    weight: float
    samples: int
    tokens: int
    text_only: int
    feature_dim: int
    encoder: str
    recipe: dict[str, Any]

    @property
    def longest(self) -> int:
        """Tokens that no sample exceeds; the compile run refused longer ones."""
        return int(min(self.recipe["row_tokens"], self.recipe["context"]))


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that could be read, and a problem for all that could not. Datasets go by their path in the spec."""

    base: BaseFacts | None
    parent: AdapterHeader | None
    datasets: dict[str, DatasetFacts]
    missing: tuple[Problem, ...]


def read_facts(spec: TrainSpec, store: Store) -> Facts:
    """Read manifests, configurations and headers; raises ``StorageError`` only where the store cannot be reached."""
    missing: list[Problem] = []
    named = {f"datasets.{number}": (share.dataset, share.weight) for number, share in enumerate(spec.datasets)}
    if spec.validation_dataset:
        named["validation_dataset"] = spec.validation_dataset, 0.0
    datasets = {}
    for path, (dataset, weight) in named.items():
        found = _tried(path, missing, partial(read_dataset, store, dataset, weight), "run the compile step again")
        if found:
            datasets[path] = found
    parent = None
    if prefix := spec.parent_adapter:
        parent = _tried("parent_adapter", missing, partial(read_header, store, prefix), GIVE_ANOTHER)
    return Facts(
        base=_tried("base", missing, partial(read_base, store, spec.base), "bring it in with `ibllm import-base`"),
        parent=parent,
        datasets=datasets,
        missing=tuple(missing),
    )


def read_base(store: Store, name: str) -> BaseFacts:
    """A base's facts from its manifest and ``config.json``."""
    prefix = layout.base(name)
    manifest = store.manifest(prefix)
    return BaseFacts(
        size=read_size(store.get_json(f"{prefix}/config.json"), f"{prefix}/config.json"),
        sha256=weights_hash(name, manifest),
        tokenizer_sha256=tokenizer_hash(manifest),
    )


def read_dataset(store: Store, dataset: str, weight: float) -> DatasetFacts:
    """A dataset's facts from its manifest and the schema of its first features."""
    prefix = layout.dataset(dataset)
    manifest = store.manifest(prefix)
    schema = pq.read_schema(io.BytesIO(store.get(f"{prefix}/{FIRST_FEATURES}")))
    counts = manifest["counts"]
    return DatasetFacts(
        dataset=dataset,
        weight=weight,
        samples=counts["samples"],
        tokens=counts["tokens"],
        text_only=counts["text_only"],
        feature_dim=schema.field("vectors").type.list_size // int(schema.metadata[b"views"]),
        encoder=manifest["encoder"]["name"],
        recipe=manifest["recipe"],
    )


def _tried(path: str, missing: list[Problem], read: Callable[[], Read], if_missing: str) -> Read | None:
    """What was read; None, with a problem noted, where it is not there or cannot be used."""
    try:
        return read()
    except ObjectMissingError as error:
        missing.append(Problem(path=path, what=error.message, remedy=if_missing))
    except (InvalidSpecError, InvalidWeightsError) as error:
        what, _, remedy = error.message.rpartition(": ")
        missing.append(Problem(path=path, what=what, remedy=remedy))
    return None
