"""Loading a frozen LLaMA tensor by tensor: peak memory is the weights in their new dtype and one tensor."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from ibllm_core.bases.checks import check_finite, read_checked
from ibllm_core.bases.fingerprint import Fingerprint
from ibllm_core.bases.formats import open_source
from ibllm_core.bases.skeleton import allocate, finish, put_weight
from ibllm_core.bases.source import WeightSource
from ibllm_core.errors import InvalidWeightsError


@dataclass(frozen=True, kw_only=True)
class LoadedBase:
    """A frozen base model with its tokenizer and the hash of its weights as they are stored."""

    llama: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerBase
    sha256: str


def load_base(path: Path, dtype: torch.dtype) -> LoadedBase:
    """Load a base of any format; the hash is taken of the stored bytes while they pass.

    Raises ``InvalidWeightsError`` as ``load_tokenizer`` and ``load_llama`` do, in this order.
    """
    source = open_source(path)
    tokenizer = load_tokenizer(source)
    fingerprint = Fingerprint(source.config)
    llama = _load(source, dtype, "cpu", fingerprint.add)
    return LoadedBase(llama=llama, tokenizer=tokenizer, sha256=fingerprint.hexdigest())


def load_llama(
    source: WeightSource | Path, dtype: torch.dtype, *, device: torch.device | str = "cpu"
) -> LlamaForCausalLM:
    """Load a ``LlamaForCausalLM`` in ``dtype``: frozen, in eval mode, rotary frequencies in float32.

    Raises ``InvalidWeightsError`` naming file and key where a tensor is unknown, missing, of a wrong shape, torn, or
    not finite (in ``dtype`` too: float16 ends at 65504). Then nothing is returned.
    """
    return _load(_opened(source), dtype, device, lambda name, tensor: None)


def load_tokenizer(source: WeightSource | Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a base.

    Raises ``InvalidWeightsError`` where it is missing or has tokens for which the embedding has no row.
    """
    source = _opened(source)
    tokenizer = source.tokenizer()
    num_tokens = max(tokenizer.get_vocab().values()) + 1
    if num_tokens > source.config.vocab_size:
        raise InvalidWeightsError(
            f"the tokenizer of {source.path} has {num_tokens} tokens, the embedding only {source.config.vocab_size} "
            "rows: remove the tokens that were added to the tokenizer, or give the weights that were trained with it",
            file=str(source.path),
            key="model.embed_tokens.weight",
            expected=num_tokens,
        )
    return tokenizer


def weights_sha256(source: WeightSource | Path) -> str:
    """The hash that ``load_base`` returns, and all its checks of the weights, without a model."""
    source = _opened(source)
    fingerprint = Fingerprint(source.config)
    for stored, tensor in read_checked(source):
        fingerprint.add(stored.name, tensor)
        del tensor
    return fingerprint.hexdigest()


def _load(
    source: WeightSource, dtype: torch.dtype, device: torch.device | str, see: Callable[[str, Tensor], None]
) -> LlamaForCausalLM:
    llama = allocate(copy.deepcopy(source.config), dtype, device)
    for stored, tensor in read_checked(source):
        see(stored.name, tensor)
        weight = put_weight(llama, stored.name, tensor)
        if weight.dtype != stored.dtype:
            check_finite(weight, stored)
        del tensor, weight  # else a tensor in the stored dtype would live while the next one is read
    return finish(llama, dtype)


def _opened(source: WeightSource | Path) -> WeightSource:
    return open_source(source) if isinstance(source, Path) else source
