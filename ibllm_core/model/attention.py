"""The attention of every layer: each sample of a packed batch to itself, at a cost that rows do not change.

One implementation in transformers' registry. Called with ``blocks`` it attends within samples: on CUDA in half
precision by torch's varlen kernel, elsewhere over buckets of samples of like length (``model/buckets.py``). Without
them, for generation and its cache, it is transformers' SDPA under the mask that it is given.

Shape suffixes: B rows, T tokens, S samples or segments, H heads, G key-value heads, D head dimension, K prompts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from ibllm_core.errors import InvalidSpecError
from ibllm_core.model import buckets
from ibllm_core.model.batch import Blocks

NAME = "within_samples"


def install(llama: LlamaForCausalLM) -> None:
    """Make this the attention of a backbone; ``InvalidSpecError`` where its configuration drops attention weights."""
    if llama.config.attention_dropout:
        raise InvalidSpecError(
            f"the base's attention_dropout is {llama.config.attention_dropout}, but packed samples are attended "
            "without dropout: set it to 0 in the base's config.json"
        )
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    llama.config._attn_implementation = NAME


@torch.compiler.disable  # type: ignore[untyped-decorator]  # its shapes change with every batch
def _attention(
    module: Any,
    queries_BHTD: Tensor,
    keys_BGTD: Tensor,
    values_BGTD: Tensor,
    attention_mask: Tensor | None,
    *,
    blocks: Blocks | None = None,
    media: Any = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What transformers calls; gives ``[B, T, H, D]``. ``look_at_prompts`` is a second look that a fusion installs."""
    if blocks is None:
        output_BTHD = sdpa_attention_forward(module, queries_BHTD, keys_BGTD, values_BGTD, attention_mask, **kwargs)[0]
    else:
        queries_THD, keys_TGD, values_TGD = (x[0].transpose(0, 1) for x in (queries_BHTD, keys_BGTD, values_BGTD))
        output_BTHD = within_samples(queries_THD, keys_TGD, values_TGD, blocks, module.scaling)[None]
    look = getattr(module, "look_at_prompts", None)
    found_BTHD = look(queries_BHTD, module.scaling, media, blocks) if look else None
    return (output_BTHD if found_BTHD is None else output_BTHD + found_BTHD), None


def within_samples(queries_THD: Tensor, keys_TGD: Tensor, values_TGD: Tensor, blocks: Blocks, scale: float) -> Tensor:
    """Causal attention of each sample to itself, ``[T, H, D]``; zeros at padding."""
    if not _has_kernel(queries_THD):
        return buckets.within_samples(queries_THD, keys_TGD, values_TGD, blocks, scale)
    own_THD, own_TGD, values_TGD = (states[: blocks.num_tokens] for states in (queries_THD, keys_TGD, values_TGD))
    bounds, longest = blocks.bounds_S1, blocks.longest
    found = varlen_attn(
        own_THD,
        own_TGD,
        values_TGD,
        bounds,
        bounds,
        longest,
        longest,
        scale=scale,
        window_size=(-1, 0),  # causal
        enable_gqa=True,
    )
    return _with_padding(found, queries_THD)


def to_prompts(queries_THD: Tensor, keys_SKGD: Tensor, values_SKGD: Tensor, blocks: Blocks, scale: float) -> Tensor:
    """Attention of each token to all prompts of its sample's segment, ``[T, H, D]``; zeros at padding.

    The last segment is that of no media.
    """
    if not _has_kernel(queries_THD):
        return buckets.to_prompts(queries_THD, keys_SKGD, values_SKGD, blocks, scale)
    prompts = keys_SKGD.shape[1]
    segments_S = blocks.segments_S % len(keys_SKGD)
    keys, values = (states.index_select(0, segments_S).flatten(0, 1) for states in (keys_SKGD, values_SKGD))
    key_bounds_S1 = torch.arange(len(segments_S) + 1, dtype=torch.int32, device=queries_THD.device) * prompts
    own_THD = queries_THD[: blocks.num_tokens]
    found = varlen_attn(
        own_THD, keys, values, blocks.bounds_S1, key_bounds_S1, blocks.longest, prompts, scale=scale, enable_gqa=True
    )
    return _with_padding(found, queries_THD)


def _has_kernel(states: Tensor) -> bool:
    return states.is_cuda and states.dtype in (torch.bfloat16, torch.float16)


def _with_padding(found: Any, like_THD: Tensor) -> Tensor:
    return F.pad(found, (0, 0, 0, 0, 0, len(like_THD) - len(found)))
