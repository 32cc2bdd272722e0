"""Attention within samples where there is no kernel for it: over buckets of samples of like length, padded to theirs.

Shape suffixes: T tokens, S samples of a bucket, L places of a sample, M places of all buckets, H heads, G key-value
heads, D head dimension, K prompts, X heads times D. In ``_attended``: B key-value heads of all samples, Q places of all
heads that share one, K keys.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ibllm_core.model.batch import Blocks

# Longer samples go through SDPA, whose memory does not grow with the square. For 1,024 tokens forward and backward in
# bf16, one EPYC core took 5 against 31 ms in captions of 10 to 40 tokens, 13 against 26 at 128, 48 against 45 at 512.
SHORT = 256


def within_samples(queries_THD: Tensor, keys_TGD: Tensor, values_TGD: Tensor, blocks: Blocks, scale: float) -> Tensor:
    """As ``attention.within_samples``."""
    queries, keys, values = (_in_buckets(states, blocks) for states in (queries_THD, keys_TGD, values_TGD))
    found = [_causal(q, k, v, scale) for q, k, v in zip(queries, keys, values, strict=True)]
    return _from_buckets(found, blocks, queries_THD)


def to_prompts(queries_THD: Tensor, keys_SKGD: Tensor, values_SKGD: Tensor, blocks: Blocks, scale: float) -> Tensor:
    """As ``attention.to_prompts``."""
    counts = [count for count, _ in blocks.buckets]
    segments_S = blocks.bucket_segments_S % len(keys_SKGD)
    keys, values = (torch.split(states.index_select(0, segments_S), counts) for states in (keys_SKGD, values_SKGD))
    queries = _in_buckets(queries_THD, blocks)
    found = [_attended(q, k, v, scale, None) for q, k, v in zip(queries, keys, values, strict=True)]
    return _from_buckets(found, blocks, queries_THD)


def _in_buckets(states_THD: Tensor, blocks: Blocks) -> list[Tensor]:
    """Each bucket's states, ``[S, L, H, D]``."""
    places_MX = _ToPlaces.apply(states_THD.flatten(1), blocks)  # type: ignore[no-untyped-call]
    parts = places_MX.split([count * width for count, width in blocks.buckets])
    shapes = [(*bucket, *states_THD.shape[1:]) for bucket in blocks.buckets]
    return [part_MX.view(shape) for part_MX, shape in zip(parts, shapes, strict=True)]


def _from_buckets(found: list[Tensor], blocks: Blocks, like_THD: Tensor) -> Tensor:
    """Back to the tokens, from ``[S, L, H, D]`` of each bucket."""
    places_MX = torch.cat([part.flatten(0, 1).flatten(1) for part in found])
    tokens_TX: Tensor = _FromPlaces.apply(places_MX, blocks)  # type: ignore[no-untyped-call]
    return tokens_TX.view(like_THD.shape)


def _causal(queries_SLHD: Tensor, keys_SLGD: Tensor, values_SLGD: Tensor, scale: float) -> Tensor:
    length = queries_SLHD.shape[1]
    if length <= SHORT:
        mask_LL = _causal_mask(length, _precise(queries_SLHD.dtype), queries_SLHD.device)
        return _attended(queries_SLHD, keys_SLGD, values_SLGD, scale, mask_LL)
    group = queries_SLHD.shape[2] // keys_SLGD.shape[2]
    found_SHLD = F.scaled_dot_product_attention(
        queries_SLHD.transpose(1, 2),
        keys_SLGD.repeat_interleave(group, dim=2).transpose(1, 2),
        values_SLGD.repeat_interleave(group, dim=2).transpose(1, 2),
        is_causal=True,
        scale=scale,
    )
    return found_SHLD.transpose(1, 2)


def _attended(
    queries_SLHD: Tensor, keys_SKGD: Tensor, values_SKGD: Tensor, scale: float, mask_LK: Tensor | None
) -> Tensor:
    """Attention as plain batched products, one for the heads of a group; ``mask_LK`` is added to the scores."""
    samples, length, num_heads, dim = queries_SLHD.shape
    groups = keys_SKGD.shape[2]
    heads = num_heads // groups
    queries_SGHLD = queries_SLHD.view(samples, length, groups, heads, dim).permute(0, 2, 3, 1, 4)
    queries_BQD = queries_SGHLD.reshape(samples * groups, heads * length, dim)
    keys_BKD, values_BKD = (states.transpose(1, 2).flatten(0, 1) for states in (keys_SKGD, values_SKGD))
    mask_QK = None if mask_LK is None else mask_LK.repeat(heads, 1)
    found_BQD = _Softmax.apply(queries_BQD, keys_BKD, values_BKD, scale, mask_QK)  # type: ignore[no-untyped-call]
    found_SLGHD: Tensor = found_BQD.view(samples, groups, heads, length, dim).permute(0, 3, 1, 2, 4)
    return found_SLGHD.flatten(2, 3)


def _precise(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


@lru_cache(maxsize=2 * SHORT)
def _causal_mask(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.full((length, length), float("-inf"), dtype=dtype, device=device).triu(1)


class _Softmax(torch.autograd.Function):
    """``softmax(q k^T * scale + mask) v`` at the precision of flash attention's kernels.

    Scores, weights and their slopes are float32 or better, and rounded where they enter a product.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, scale: float, mask: Tensor | None) -> Tensor:
        precise = _precise(queries.dtype)
        factors = queries.to(precise), keys.to(precise).transpose(1, 2)
        scores = torch.bmm(*factors) * scale if mask is None else torch.baddbmm(mask, *factors, alpha=scale)
        weights = scores.softmax(dim=-1)
        ctx.save_for_backward(queries, keys, values, weights)
        ctx.scale = scale
        return torch.bmm(weights.to(values.dtype), values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values, weights = ctx.saved_tensors
        of_weights = torch.bmm(gradient.to(weights.dtype), values.to(weights.dtype).transpose(1, 2))
        # weights * (of_weights - sum(weights * of_weights)), in one pass
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype).mul_(ctx.scale)
        of_scores = of_scores.to(queries.dtype)
        of_values = torch.bmm(weights.to(gradient.dtype).transpose(1, 2), gradient)
        return torch.bmm(of_scores, keys), torch.bmm(of_scores.transpose(1, 2), queries), of_values, None, None


class _ToPlaces(torch.autograd.Function):
    """Tokens at the buckets' places. Torch's own way back through an index adds row by row; this one gathers."""

    @staticmethod
    def forward(ctx: Any, states_TX: Tensor, blocks: Blocks) -> Tensor:
        ctx.blocks = blocks
        return states_TX.index_select(0, blocks.token_of_place_M)

    @staticmethod
    def backward(ctx: Any, gradient_MX: Tensor) -> tuple[Tensor, None]:
        # Nothing comes back from spare places: as keys nobody sees them, as queries nobody reads them.
        return _gather_tokens(gradient_MX, ctx.blocks), None


class _FromPlaces(torch.autograd.Function):
    """The buckets' places back at their tokens; zeros at padding, and no gradient to spare places."""

    @staticmethod
    def forward(ctx: Any, states_MX: Tensor, blocks: Blocks) -> Tensor:
        ctx.blocks = blocks
        return _gather_tokens(states_MX, blocks)

    @staticmethod
    def backward(ctx: Any, gradient_TX: Tensor) -> tuple[Tensor, None]:
        blocks = ctx.blocks
        return gradient_TX.index_select(0, blocks.token_of_place_M).index_fill_(0, blocks.spare_P, 0), None


def _gather_tokens(states_MX: Tensor, blocks: Blocks) -> Tensor:
    states_TX = states_MX.index_select(0, blocks.place_of_token_T)
    states_TX[blocks.num_tokens :] = 0
    return states_TX
