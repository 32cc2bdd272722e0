"""Where the samples of a batch lie, worked out on the host.

Shape suffixes: T tokens of a batch, S samples, M places of all buckets.
"""

from __future__ import annotations

import numpy as np
import torch

from ibllm_core.data.dataset import ranges
from ibllm_core.model.batch import Blocks
from ibllm_core.model.fusion.base import NO_SEGMENT

SHORTEST_SHARE = 2 / 3  # of a bucket's longest sample; at captions' lengths a sixth of the places is spare


def lay_out(lengths_S: np.ndarray, segments_S: np.ndarray, num_tokens: int) -> Blocks:
    """The blocks of samples, each of at least one token, side by side in ``num_tokens`` tokens.

    Without any sample the first token of the padding stands in for one, so that every parameter keeps a gradient.
    """
    if not len(lengths_S):
        lengths_S, segments_S = np.array([1]), np.array([NO_SEGMENT])
    starts_S = np.cumsum(lengths_S) - lengths_S
    order_S = np.argsort(-lengths_S, kind="stable")
    buckets = _buckets(lengths_S[order_S].tolist())
    widths_S = np.repeat([width for _, width in buckets], [count for count, _ in buckets])
    offsets_M = ranges(np.zeros_like(widths_S), widths_S)
    ends_M = np.repeat(lengths_S[order_S], widths_S)
    token_of_place_M = np.repeat(starts_S[order_S], widths_S) + np.minimum(offsets_M, ends_M - 1)
    is_spare_M = offsets_M >= ends_M
    place_of_token_T = np.zeros(num_tokens, dtype=np.int64)
    place_of_token_T[token_of_place_M[~is_spare_M]] = np.flatnonzero(~is_spare_M)
    return Blocks(
        num_tokens=int(lengths_S.sum()),
        longest=int(lengths_S.max()),
        buckets=tuple(buckets),
        bounds_S1=torch.from_numpy(np.append(starts_S, lengths_S.sum()).astype(np.int32)),
        segments_S=torch.from_numpy(segments_S.astype(np.int64)),
        token_of_place_M=torch.from_numpy(token_of_place_M),
        place_of_token_T=torch.from_numpy(place_of_token_T),
        spare_P=torch.from_numpy(np.flatnonzero(is_spare_M)),
        bucket_segments_S=torch.from_numpy(segments_S[order_S].astype(np.int64)),
    )


def _buckets(falling_lengths: list[int]) -> list[tuple[int, int]]:
    """``(samples, longest)`` of each bucket."""
    buckets: list[tuple[int, int]] = []
    for length in falling_lengths:
        if buckets and length >= SHORTEST_SHARE * buckets[-1][1]:
            buckets[-1] = (buckets[-1][0] + 1, buckets[-1][1])
        else:
            buckets.append((1, length))
    return buckets
