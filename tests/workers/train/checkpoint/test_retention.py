"""What stays of many checkpoints."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibllm_core.contract.job_spec import CheckpointPolicy
from workers.train.checkpoint.retention import best_first, kept

LOSSES = st.dictionaries(st.integers(1, 200), st.none() | st.floats(0, 10) | st.just(math.nan), min_size=1, max_size=30)
POLICIES = st.builds(
    CheckpointPolicy,
    keep_last=st.integers(1, 5),
    keep_best=st.integers(0, 5),
    keep_every=st.none() | st.integers(1, 50),
)


@given(LOSSES, POLICIES)
def test_the_newest_the_best_and_every_so_manieth_stay(
    losses: dict[int, float | None], policy: CheckpointPolicy
) -> None:
    chosen = kept(losses, policy)
    newest = sorted(losses)[-policy.keep_last :]
    measured = {step: loss for step, loss in losses.items() if loss is not None and not math.isnan(loss)}
    best = sorted(measured, key=lambda step: (measured[step], step))[: policy.keep_best]
    milestones = {step for step in losses if policy.keep_every and step % policy.keep_every == 0}
    assert chosen == {*newest, *best, *milestones}
    assert max(losses) in chosen


@given(LOSSES, POLICIES)
def test_what_stays_would_stay_again(losses: dict[int, float | None], policy: CheckpointPolicy) -> None:
    chosen = kept(losses, policy)
    assert kept({step: losses[step] for step in chosen}, policy) == chosen


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"keep_last": 1, "keep_best": 0}, {50}),
        ({"keep_last": 2, "keep_best": 0}, {40, 50}),
        ({"keep_last": 1, "keep_best": 2}, {20, 30, 50}),
        ({"keep_last": 1, "keep_best": 0, "keep_every": 20}, {20, 40, 50}),
    ],
)
def test_a_policy_by_example(policy: dict[str, int], expected: set[int]) -> None:
    losses = {10: 3.0, 20: 1.0, 30: 2.0, 40: None, 50: 4.0}
    assert kept(losses, CheckpointPolicy(**policy)) == expected


def test_the_best_has_the_lowest_finite_loss_and_of_equal_ones_the_earlier() -> None:
    assert best_first({10: 2.0, 20: 1.0, 30: math.nan, 40: None, 50: 1.0, 60: -math.inf}) == [20, 50, 10]
    assert best_first({10: None, 20: math.nan}) == []


@given(LOSSES, POLICIES)
def test_the_best_of_all_is_kept_through_every_save(losses: dict[int, float | None], policy: CheckpointPolicy) -> None:
    """Where any is: what had gone before would not be chosen at the end."""
    left: dict[int, float | None] = {}
    for step in sorted(losses):
        left[step] = losses[step]
        left = {kept_step: left[kept_step] for kept_step in kept(left, policy)}
    if policy.keep_best:
        assert best_first(left)[:1] == best_first(losses)[:1]
