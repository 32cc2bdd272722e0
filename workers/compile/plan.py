"""A compile run as data that travels to its tasks, and what a process makes of it there."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from ibllm_core.contract import layout
from ibllm_core.contract.media import Modality
from ibllm_core.contract.run_spec import CompileInput
from ibllm_core.encoders.base import Encoder
from ibllm_core.encoders.registry import load_encoder
from ibllm_core.formats.dataset import Dataset, Piece
from ibllm_core.formats.fetch import Fetcher
from ibllm_core.open_store import open_store
from ibllm_core.prompts import Prompter
from ibllm_core.settings import StorageSettings
from workers.compile.identity import Recipe
from workers.compile.prepare import Preparer
from workers.model_loading import fetch_base
from workers.settings import WorkerSettings


@dataclass(frozen=True, kw_only=True)
class InputPlan:
    """One input: how its rows are read, and what they become."""

    input: CompileInput
    dataset: Dataset
    pieces: tuple[Piece, ...]
    recipe: Recipe
    recipe_hash: str
    fetcher: Fetcher


@dataclass(frozen=True, kw_only=True)
class EncoderPlan:
    """Which encoder, and how its actors run it."""

    name: str
    dtype: str
    actors: int
    cpus: float
    gpus: float

    @property
    def chunk_rows(self) -> int:
        """Rows that travel together: a second's work or so, so that no actor waits long for another's last one."""
        return 128 if self.gpus else 16

    @property
    def device(self) -> str:
        """Where vectors are computed."""
        return "cuda" if self.gpus else "cpu"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All inputs of a run; they share base and encoder."""

    base: str
    encoder: EncoderPlan
    views: int
    inputs: tuple[InputPlan, ...]


def open_encoder(plan: EncoderPlan, *, device: str = "cpu") -> Encoder:
    """The encoder on this node, its weights not yet fetched: ``fetch_weights`` does that."""
    settings, store = WorkerSettings(), open_store(StorageSettings())
    prefix = layout.encoder(plan.name)
    weights = settings.ibllm_cache / prefix if store.exists(layout.manifest(prefix)) else None
    if weights:
        store.download_folder(prefix, settings.ibllm_cache, wanted=lambda name: name.endswith(".json"))
    return load_encoder(plan.name, weights=weights, device=device, dtype=getattr(torch, plan.dtype))


def fetch_weights(plan: EncoderPlan, encoder: Encoder, modality: Modality) -> None:
    """Bring what one modality needs of the encoder's weights to this node."""
    wanted = set(encoder.weight_files(modality))
    if wanted:
        cache = WorkerSettings().ibllm_cache
        open_store(StorageSettings()).download_folder(layout.encoder(plan.name), cache, wanted=wanted.__contains__)


def preparers(blob: bytes, claim: Callable[[Sequence[str], str], list[bool]]) -> list[Preparer]:
    """A preparer for each input of a pickled plan; tokenizer and encoder are opened once a process."""
    plan, prompters, encoder = _opened(blob)
    return [
        Preparer(recipe=item.recipe, prompter=prompter, encoder=encoder, fetcher=item.fetcher, claim=claim)
        for item, prompter in zip(plan.inputs, prompters, strict=True)
    ]


@lru_cache(maxsize=1)
def _opened(blob: bytes) -> tuple[Plan, list[Prompter], Encoder]:
    plan: Plan = pickle.loads(blob)  # noqa: S301 (made by this run's driver)
    base = fetch_base(open_store(StorageSettings()), plan.base, WorkerSettings().ibllm_cache, with_weights=False)
    tokenizer = base.tokenizer()
    prompters = [Prompter(tokenizer=tokenizer, template=item.recipe.template) for item in plan.inputs]
    return plan, prompters, open_encoder(plan.encoder)
