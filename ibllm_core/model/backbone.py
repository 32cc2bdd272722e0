"""The ways through the frozen LLaMA that the model needs; loading it is the work of ``ibllm_core.bases``.

Shape suffixes: B rows, T tokens of a row, C model dimension, V vocabulary, N label tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from ibllm_core.contract.base import Contract


class BaseShape(Contract):
    """The numbers of a base that the parts around it, and its adapters, depend on."""

    model_dim: int
    hidden_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    vocab_size: int


def shape_of(llama: LlamaForCausalLM) -> BaseShape:
    """Read a backbone's dimensions."""
    config = llama.config
    return BaseShape(
        model_dim=config.hidden_size,
        hidden_dim=config.intermediate_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        vocab_size=config.vocab_size,
    )


def fuse_norms(llama: LlamaForCausalLM) -> None:
    """Put torch's RMSNorm in the place of transformers', with the same weights, in place.

    The same numbers in float32. In bfloat16 it rounds once where transformers rounds twice, and takes a quarter of the
    time; in float64 it does not pass through float32.
    """
    eps = llama.config.rms_norm_eps
    owners: list[Any] = [*llama.model.layers, llama.model]
    for owner in owners:
        for name in ("input_layernorm", "post_attention_layernorm", "norm"):
            old = getattr(owner, name, None)
            if old is not None and not isinstance(old, nn.RMSNorm):
                new = nn.RMSNorm(old.weight.shape[0], eps=eps, device="meta")
                new.weight = old.weight
                setattr(owner, name, new)


def packed_mask(positions_BT: Tensor) -> Tensor:
    """Who may look at whom, ``[B, 1, T, T]``: a token at itself and what stands before it in its sample.

    A position 0 begins a sample. Made once a step without a look at the host; transformers' own search for packed
    samples waits for the device.
    """
    samples_BT = (positions_BT == 0).cumsum(dim=1)
    same_BTT = samples_BT[:, :, None] == samples_BT[:, None, :]
    return same_BTT.tril()[:, None]


def hidden_states(
    llama: LlamaForCausalLM, embedded_BTC: Tensor, positions_BT: Tensor, mask: Tensor, cache: Any = None
) -> Tensor:
    """Final hidden states ``[B, T, C]``; ``mask`` is ``[B, 1, T, keys]``, true where a token may look."""
    output = llama.model(
        inputs_embeds=embedded_BTC,
        position_ids=positions_BT,
        attention_mask=mask,
        past_key_values=cache,
        use_cache=cache is not None,
    )
    hidden_BTC: Tensor = output.last_hidden_state
    return hidden_BTC


def label_losses(llama: LlamaForCausalLM, hidden_BTC: Tensor, places_N: Tensor, targets_N: Tensor) -> Tensor:
    """Cross-entropy of each label token, ``[N]`` in float32 or better; the head runs on ``places_N`` alone.

    ``places_N`` counts through the flattened rows, and is where each of ``targets_N`` is predicted.
    """
    logits_NV = llama.lm_head(hidden_BTC.flatten(0, 1).index_select(0, places_N))
    precise = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
    return nn.functional.cross_entropy(precise, targets_N, reduction="none")
