"""Models of a replica: an adapter each, around bases and encoders that they share."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from ibllm_core.adapter import files
from ibllm_core.bases.load import load_llama
from ibllm_core.contract.serving import ServedAdapter
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.stages import group_of
from ibllm_core.prompts import Prompter
from ibllm_core.storage import Store
from workers.adapter_source import fetch_adapter
from workers.compile.plan import EncoderPlan
from workers.model_loading import Base, choose_dtype, fetch_base
from workers.serve.media import Eyes

Thing = TypeVar("Thing")


@dataclass(frozen=True, kw_only=True, eq=False)
class FrozenBase:
    """A base on its device, as it was brought in."""

    about: Base
    llama: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True, eq=False)
class ServedModel:
    """A model that can be asked; it keeps its base and its encoder alive."""

    llm: ImageBindLLM
    base: FrozenBase
    eyes: Eyes
    template: str
    end_tokens: frozenset[int]
    context: int
    sees_grey: bool


class Loader:
    """Loads models one at a time. A base or an encoder lives as long as a model that uses it."""

    def __init__(self, store: Store, cache: Path, *, gpus: float) -> None:
        self._store = store
        self._cache = cache
        self._gpus = gpus
        self._device = "cuda" if gpus else "cpu"
        self._dtype = choose_dtype("auto")
        self._bases = _Shared(self._load_base)
        self._eyes = _Shared(self._open_eyes)

    def load(self, served: ServedAdapter) -> ServedModel:
        """The model of an adapter.

        ``ObjectMissingError`` where the object store lacks adapter or base, ``BaseMismatchError`` where they do not
        belong together, ``InvalidWeightsError`` for files that cannot be used.
        """
        adapter = files.read(fetch_adapter(self._store, served.adapter, self._cache))
        base = self._bases.get(served.base)
        header = adapter.header
        llm = files.build_model(
            with_own_norms(base.llama), adapter, base_sha256=base.about.sha256, source=served.adapter
        )
        return ServedModel(
            llm=llm.to(self._device).eval(),
            base=base,
            eyes=self._eyes.get(served.encoder),
            template=header.template,
            end_tokens=Prompter(tokenizer=base.tokenizer, template=header.template).end_tokens,
            context=base.about.context,
            sees_grey=header.config.preset == "released",
        )

    def _load_base(self, name: str) -> FrozenBase:
        about = fetch_base(self._store, name, self._cache)
        llama = load_llama(about.folder, self._dtype, device=self._device)
        return FrozenBase(about=about, llama=llama, tokenizer=about.tokenizer())

    def _open_eyes(self, encoder: str) -> Eyes:
        dtype = "bfloat16" if self._gpus else "float32"  # as compile runs choose it
        return Eyes(EncoderPlan(name=encoder, dtype=dtype, actors=1, cpus=0, gpus=self._gpus))


def with_own_norms(llama: LlamaForCausalLM) -> LlamaForCausalLM:
    """The same backbone for another adapter: the large weights are shared, modules and norms are copied.

    An adapter of stage 2 wraps the linears, and writes its norms into those of the base.
    """
    shared = {id(p): p for name, p in llama.named_parameters() if group_of(name) == "llama"}
    return copy.deepcopy(llama, shared)


class _Shared(Generic[Thing]):
    """Things by name, each made once and kept while somebody else keeps it."""

    def __init__(self, make: Callable[[str], Thing]) -> None:
        self._make = make
        self._alive: weakref.WeakValueDictionary[str, Thing] = weakref.WeakValueDictionary()

    def get(self, name: str) -> Thing:
        """The thing of a name."""
        found = self._alive.get(name)
        if found is None:
            found = self._alive[name] = self._make(name)
        return found
