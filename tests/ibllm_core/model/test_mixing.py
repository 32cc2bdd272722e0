from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ibllm_core.errors import InvalidPromptError
from ibllm_core.model.mixing import mix, unit

ELEMENTS = st.floats(-4, 4, width=32).filter(lambda x: abs(x) > 0.01)


def mixed_by_loops(features: list[list[float]], weights: list[float], epsilon: float) -> list[float]:
    total = sum(weights) + epsilon
    result = [0.0] * len(features[0])
    for feature, weight in zip(features, weights, strict=True):
        length = math.sqrt(sum(x * x for x in feature))
        for i, x in enumerate(feature):
            result[i] += weight / total * x / length
    return result


def at_length_1(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


@st.composite
def media(draw: st.DrawFn) -> tuple[list[list[float]], list[float]]:
    count, width = draw(st.integers(1, 4)), draw(st.integers(2, 9))
    # A large first element in common: media that cancel each other out have a test of their own.
    vectors = [[8.0, *draw(st.lists(ELEMENTS, min_size=width, max_size=width))] for _ in range(count)]
    return vectors, draw(st.lists(st.floats(0.05, 5), min_size=count, max_size=count))


@given(media())
def test_equals_the_formula_written_out(drawn: tuple[list[list[float]], list[float]]) -> None:
    vectors, weights = drawn
    mixed = mix([torch.tensor(vector) for vector in vectors], weights)
    expected = torch.tensor(at_length_1(mixed_by_loops(vectors, weights, 0.0)))
    torch.testing.assert_close(mixed, expected, atol=1e-6, rtol=1e-5)


@given(media())
def test_released_mode_adds_the_epsilon_and_keeps_the_length(drawn: tuple[list[list[float]], list[float]]) -> None:
    vectors, weights = drawn
    mixed = mix([torch.tensor(vector) for vector in vectors], weights, renormalise=False)
    expected = torch.tensor(mixed_by_loops(vectors, weights, 1e-6))
    torch.testing.assert_close(mixed, expected, atol=1e-6, rtol=1e-5)


def test_the_released_epsilon_shows_at_tiny_weights() -> None:
    feature = torch.tensor([3.0, 4.0])
    torch.testing.assert_close(mix([feature], [1e-6], renormalise=False), torch.tensor([0.3, 0.4]))
    torch.testing.assert_close(mix([feature], [1e-6]), torch.tensor([0.6, 0.8]))


def test_unrelated_media_come_out_short_unless_renormalised() -> None:
    sky, bark = torch.eye(2)
    assert mix([sky, bark], renormalise=False).norm().item() == pytest.approx(0.5**0.5, abs=1e-5)
    assert mix([sky, bark]).norm().item() == pytest.approx(1)


def test_mixes_row_by_row_and_answers_in_fp32() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(3, 8).half(), torch.randn(3, 8).half()
    mixed = mix([first, second], [0.2, 0.8])
    assert mixed.dtype == torch.float32
    rows = [mix([a, b], [0.2, 0.8]) for a, b in zip(first, second, strict=True)]
    torch.testing.assert_close(mixed, torch.stack(rows))


@given(st.sampled_from([1e-30, 1e-3, 1.0, 1e30]))
def test_a_unit_vector_does_not_depend_on_the_length_it_had(factor: float) -> None:
    torch.testing.assert_close(unit(torch.tensor([3.0, 4.0]) * factor, "it"), torch.tensor([0.6, 0.8]))


ONE, OTHER = torch.tensor([1.0, 2.0]), torch.tensor([2.0, -1.0])


@pytest.mark.parametrize(
    ("features", "weights", "message"),
    [
        ([], None, "nothing to mix"),
        ([torch.tensor(1.0)], None, "one shape"),
        ([torch.empty(0)], None, "one shape"),
        ([ONE, torch.ones(3)], None, r"shapes \[\(2,\), \(3,\)\]"),
        ([ONE, OTHER], [1.0], "1 weights stand for 2 features"),
        ([ONE, OTHER], [1.0, -0.1], "number 1 must be finite and not negative"),
        ([ONE, OTHER], [float("nan"), 1.0], "number 0 must be finite"),
        ([ONE, OTHER], [1.0, float("inf")], "number 1 must be finite"),
        ([ONE, OTHER], [0.0, 0.0], "all zero"),
        ([ONE, torch.tensor([1.0, float("nan")])], None, "feature 1 has NaN"),
        ([torch.tensor([float("inf"), 1.0])], None, "feature 0 has NaN or infinite"),
        ([ONE, torch.zeros(2)], None, "feature 1 is a zero vector"),
        ([ONE, -ONE], None, "cancel each other out"),
        ([torch.stack([ONE, ONE]), torch.stack([ONE, -3 * ONE])], None, "cancel each other out"),
    ],
)
def test_refuses_what_cannot_be_mixed(features: list[Tensor], weights: list[float] | None, message: str) -> None:
    with pytest.raises(InvalidPromptError, match=message):
        mix(features, weights)


def test_released_mode_lets_media_cancel_each_other_out() -> None:
    torch.testing.assert_close(mix([ONE, -ONE], renormalise=False), torch.zeros(2))
