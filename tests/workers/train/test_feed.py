"""What ranks read of a global batch, and the random numbers of a step."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ibllm_core.data.corpus import Corpus
from ibllm_core.data.packing import Sampler
from tests.conftest import PAD
from tests.workers.train import engines
from workers.train.feed import Feed, Step, seed_step

LARGEST_SEED = 2**31 - 1


def feed(*, rank: int = 0, ranks: int = 1, micro_rows: int = 2, rows_per_step: int = 5, epochs: int = 2) -> Feed:
    corpus = Corpus([engines.data()])
    sampler = Sampler(
        sizes=corpus.sizes,
        weights=corpus.weights,
        seed=0,
        epochs=epochs,
        row_tokens=engines.ROW_TOKENS,
        rows_per_step=rows_per_step,
    )
    return Feed(
        corpus=corpus,
        sampler=sampler,
        rank=rank,
        world_size=ranks,
        micro_rows=micro_rows,
        media_tokens=0,
        pad_token=PAD,
    )


def steps(found: Feed, first: int = 1) -> list[Step]:
    return list(found.steps(first, found.count(None), pin=False))


@given(st.integers(1, 4), st.integers(1, 7), st.integers(1, 7))
def test_ranks_share_every_batch_and_make_as_many_forward_passes(
    ranks: int, micro_rows: int, rows_per_step: int
) -> None:
    settings = {"micro_rows": micro_rows, "rows_per_step": rows_per_step, "epochs": 1}
    alone, gang = steps(feed(**settings)), [steps(feed(rank=rank, ranks=ranks, **settings)) for rank in range(ranks)]
    for whole, *shares in zip(alone, *gang, strict=True):
        assert {(share.number, share.rows, share.num_labels, share.tokens) for share in shares} == {
            (whole.number, whole.rows, whole.num_labels, whole.tokens)
        }
        labels = [sum(micro.places_N.numel() for micro in share.micro_batches) for share in shares]
        assert sum(labels) == whole.num_labels
        shapes = [[micro.tokens_T.shape for micro in share.micro_batches] for share in shares]
        assert all(shape == shapes[0] for shape in shapes)


@given(st.integers(1, 6))
def test_steps_from_the_middle_are_those_of_the_whole(first: int) -> None:
    whole, rest = steps(feed()), steps(feed(), first)
    assert [(step.number, step.rows, step.is_epochs_last) for step in rest] == [
        (step.number, step.rows, step.is_epochs_last) for step in whole[first - 1 :]
    ]


def test_the_last_batch_of_an_epoch_is_short_and_known_as_the_last() -> None:
    found = steps(feed(rows_per_step=5))
    lasts = [step.number for step in found if step.is_epochs_last]
    assert lasts == [len(found) // 2, len(found)]
    assert 0 < len(found[-1].rows) < 5


def test_what_fails_while_reading_ahead_is_raised_by_the_training() -> None:
    broken = feed()
    broken.corpus.vectors = lambda features, epoch: (_ for _ in ()).throw(OSError("the disk is gone"))  # type: ignore
    with pytest.raises(OSError, match="the disk is gone"):
        steps(broken)


def test_leaving_early_ends_the_reading_thread() -> None:
    running = feed().steps(1, 6, pin=False)
    next(running)
    running.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "feed"]


def test_random_numbers_are_a_function_of_seed_step_and_rank() -> None:
    def drawn(*of: int) -> tuple[float, ...]:
        seed_step(*of)
        return tuple(torch.rand(4).tolist())

    places = [(seed, step, rank) for seed in (0, 1, LARGEST_SEED) for step in (1, 2, 10**7) for rank in (0, 1, 1023)]
    assert len({drawn(*place) for place in places}) == len(places)
    assert [drawn(*place) for place in places] == [drawn(*place) for place in places]
