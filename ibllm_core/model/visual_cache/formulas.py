"""The two formulas of cache-enhanced inference. Shapes: S queries, K neighbours, F features."""

from __future__ import annotations

import torch
from torch import Tensor

from ibllm_core.errors import InvalidPromptError
from ibllm_core.model.mixing import SMALLEST_LENGTH
from ibllm_core.model.visual_cache.settings import CacheSettings


def pull(units_SF: Tensor, keys_SKF: Tensor, scores_SK: Tensor, settings: CacheSettings) -> Tensor:
    """Unit queries joined with their nearest keys, whose inner products with them are ``scores_SK``.

    Released, with a = weight: ``p = sum_i softmax(temperature * s)_i key_i``, ``p / |p|``, then ``(1 - a) f + a p`` at
    length 1. Paper (ImageBind-LLM, equations 3 and 4): ``a (S V) + (1 - a) f`` with raw cosines ``S``, neither
    normalised to sum 1 nor brought back to length 1; ten good neighbours make it several times as long as what
    training saw. Raises ``InvalidPromptError`` where neighbours, or they and the query, cancel each other out.
    """
    weight = settings.weight
    if settings.formula == "paper":
        return weight * _weighted_sum(scores_SK, keys_SKF) + (1 - weight) * units_SF
    pulled_SF = _at_length_1(_weighted_sum(torch.softmax(settings.temperature * scores_SK, dim=-1), keys_SKF))
    return _at_length_1((1 - weight) * units_SF + weight * pulled_SF)


def _weighted_sum(weights_SK: Tensor, keys_SKF: Tensor) -> Tensor:
    return torch.einsum("sk,skf->sf", weights_SK, keys_SKF)


def _at_length_1(vectors_SF: Tensor) -> Tensor:
    lengths_S1: Tensor = torch.linalg.vector_norm(vectors_SF, dim=-1, keepdim=True)
    if bool((lengths_S1 < SMALLEST_LENGTH).any()):
        raise InvalidPromptError(
            "a query and its nearest vectors in the visual cache cancel each other out: change the cache's weight or "
            "k, or turn the cache off"
        )
    return vectors_SF / lengths_S1
