from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from ibllm_core.errors import CoreError, InvalidPromptError, InvalidSpecError
from ibllm_core.model.visual_cache.formulas import pull
from ibllm_core.model.visual_cache.settings import CacheSettings
from tests.ibllm_core.model.visual_cache.caches import drawn, made, stored


def neighbours_by_loops(vectors: np.ndarray, query: list[float], k: int) -> list[tuple[float, list[float]]]:
    scored = [(sum(q * v for q, v in zip(query, key, strict=True)), [*map(float, key)]) for key in vectors]
    return sorted(scored, key=lambda pair: -pair[0])[:k]


def unit_by_loops(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


def enhanced_by_loops(vectors: np.ndarray, query: list[float], chosen: CacheSettings) -> list[float]:
    query = unit_by_loops(query)
    found = neighbours_by_loops(vectors, query, chosen.k)
    if chosen.formula == "paper":
        sums = [sum(score * key[i] for score, key in found) for i in range(len(query))]
        return [chosen.weight * p + (1 - chosen.weight) * f for p, f in zip(sums, query, strict=True)]
    powers = [math.exp(chosen.temperature * score) for score, _ in found]
    shares = [power / sum(powers) for power in powers]
    pulled = unit_by_loops(
        [sum(a * key[i] for a, (_, key) in zip(shares, found, strict=True)) for i in range(len(query))]
    )
    return unit_by_loops([chosen.weight * p + (1 - chosen.weight) * f for p, f in zip(pulled, query, strict=True)])


@pytest.mark.parametrize("formula", ["released", "paper"])
@pytest.mark.parametrize(
    ("k", "temperature", "weight"), [(10, 20, 0.5), (1, 20, 0.5), (7, 0, 0.3), (40, 100, 0.9), (3, 5, 0), (3, 5, 1)]
)
def test_enhance_equals_the_formula_written_out(
    tmp_path: Path, formula: Any, k: int, temperature: float, weight: float
) -> None:
    vectors = drawn(40, 12)
    queries = drawn(5, 12, seed=1) * np.array([[1], [0.01], [30], [1], [5]], np.float32)
    chosen = CacheSettings(formula=formula, k=k, temperature=temperature, weight=weight)
    enhanced = made(tmp_path, vectors).enhance(torch.from_numpy(queries), chosen)
    expected = [enhanced_by_loops(stored(vectors), query, chosen) for query in queries.astype(np.float64).tolist()]
    torch.testing.assert_close(enhanced, torch.tensor(expected, dtype=torch.float32), atol=2e-6, rtol=1e-5)


def test_the_formulas_differ_and_so_does_what_they_depend_on(tmp_path: Path) -> None:
    cache = made(tmp_path, drawn(40, 12))
    query = torch.from_numpy(drawn(1, 12, seed=1))

    def enhance(formula: Any, temperature: float) -> Tensor:
        return cache.enhance(query, CacheSettings(formula=formula, temperature=temperature))

    assert torch.equal(enhance("paper", 1), enhance("paper", 90))
    assert (enhance("released", 1) - enhance("released", 90)).norm() > 0.05
    assert enhance("released", 20).norm().item() == pytest.approx(1)
    assert enhance("paper", 20).norm() > 1.2


def test_the_length_of_a_query_does_not_matter(tmp_path: Path) -> None:
    cache = made(tmp_path, drawn(40, 12))
    query = torch.from_numpy(drawn(1, 12, seed=1))
    torch.testing.assert_close(cache.enhance(query * 50, CacheSettings()), cache.enhance(query, CacheSettings()))


def test_the_defaults_are_the_released_ones() -> None:
    assert CacheSettings() == CacheSettings(formula="released", k=10, temperature=20, weight=0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"formula": "other"},
        {"k": 0},
        {"k": 101},
        {"temperature": -0.1},
        {"temperature": 100.1},
        {"temperature": float("nan")},
        {"weight": -0.1},
        {"weight": 1.1},
        {"tau": 1},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        CacheSettings(**wrong)
    assert [error["loc"] for error in caught.value.errors()] == [(next(iter(wrong)),)]


@pytest.mark.parametrize(
    ("queries", "k", "kind", "message"),
    [
        (torch.ones(1, 4), 4, InvalidSpecError, "k is 4, but must be from 1 to 3"),
        (torch.ones(1, 4), 0, InvalidSpecError, "k is 0"),
        (torch.ones(1, 5), 2, InvalidPromptError, r"shape \[1, 5\], but .* needs \[S, 4\]: encode the media with tiny"),
        (torch.ones(4), 2, InvalidPromptError, r"shape \[4\]"),
        (torch.tensor([[1, 2, 3, float("nan")]]), 2, InvalidPromptError, "NaN or infinite"),
    ],
)
def test_unusable_searches_are_refused(
    tmp_path: Path, queries: Tensor, k: int, kind: type[CoreError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        made(tmp_path, drawn(3, 4)).search(queries, k)


@pytest.mark.parametrize(
    ("query", "k", "kind", "message"),
    [
        (torch.ones(1, 4), 4, InvalidSpecError, "k is 4, but must be from 1 to 3"),
        (torch.ones(2, 5), 2, InvalidPromptError, r"shape \[2, 5\]"),
        (torch.zeros(1, 4), 2, InvalidPromptError, "zero vector"),
        (torch.tensor([[1, 2, 3, float("inf")]]), 2, InvalidPromptError, "NaN or infinite"),
    ],
)
def test_unusable_queries_are_refused(
    tmp_path: Path, query: Tensor, k: int, kind: type[CoreError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        made(tmp_path, drawn(3, 4)).enhance(query, CacheSettings(k=k))


@pytest.mark.parametrize(
    ("keys", "query"),
    [([[1.0, 0.0], [-1.0, 0.0]], [0.0, 1.0]), ([[-1.0, 0.0]], [1.0, 0.0])],
    ids=["neighbours among themselves", "the query and its neighbours"],
)
def test_what_cancels_out_is_refused_by_the_released_formula_alone(keys: list[list[float]], query: list[float]) -> None:
    keys_SKF, query_SF = torch.tensor([keys]), torch.tensor([query])
    scores_SK = torch.einsum("skf,sf->sk", keys_SKF, query_SF)
    with pytest.raises(InvalidPromptError, match="cancel each other out"):
        pull(query_SF, keys_SKF, scores_SK, CacheSettings())
    assert pull(query_SF, keys_SKF, scores_SK, CacheSettings(formula="paper")).isfinite().all()
