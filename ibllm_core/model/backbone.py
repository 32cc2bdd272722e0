"""The ways through the frozen LLaMA that the model needs; loading it is the work of ``ibllm_core.bases``.

Shape suffixes: B rows, T tokens of a row or of a packed batch, C model dimension.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import LlamaForCausalLM

from ibllm_core.contract.base import Contract
from ibllm_core.model.batch import Blocks
from ibllm_core.model.fusion.base import Media
from ibllm_core.model.norm import RMSNorm


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
    """Put our RMSNorm in the place of transformers', with the same weights, in place.

    The same numbers in float32. In bfloat16 it rounds once where transformers rounds twice, and takes a quarter of the
    time; in float64 it does not pass through float32.
    """
    eps = llama.config.rms_norm_eps
    owners: list[Any] = [*llama.model.layers, llama.model]
    for owner in owners:
        for name in ("input_layernorm", "post_attention_layernorm", "norm"):
            old = getattr(owner, name, None)
            if old is not None and not isinstance(old, RMSNorm):
                new = RMSNorm(old.weight.shape[0], eps=eps, device="meta")
                new.weight = old.weight
                setattr(owner, name, new)


def packed_hidden_states(
    llama: LlamaForCausalLM, embedded_TC: Tensor, positions_T: Tensor, blocks: Blocks, media: Media
) -> Tensor:
    """Final hidden states ``[T, C]`` of samples side by side, each of which sees itself alone.

    Goes through the layers itself: ``LlamaModel`` would look for packed samples on the host, and wait for the device.
    """
    model: Any = llama.model
    hidden_BTC = embedded_TC[None]
    rotations = model.rotary_emb(hidden_BTC, position_ids=positions_T[None])
    for layer in model.layers:
        hidden_BTC = layer(hidden_BTC, position_embeddings=rotations, blocks=blocks, media=media)
    hidden_TC: Tensor = model.norm(hidden_BTC)[0]
    return hidden_TC


def hidden_states(
    llama: LlamaForCausalLM, embedded_BTC: Tensor, positions_BT: Tensor, mask: Tensor, media: Media, cache: Any = None
) -> Tensor:
    """Final hidden states ``[B, T, C]``; ``mask`` is ``[B, 1, T, keys]``, true where a token may look."""
    output = llama.model(
        inputs_embeds=embedded_BTC,
        position_ids=positions_BT,
        attention_mask=mask,
        past_key_values=cache,
        use_cache=cache is not None,
        media=media,
    )
    hidden_BTC: Tensor = output.last_hidden_state
    return hidden_BTC
