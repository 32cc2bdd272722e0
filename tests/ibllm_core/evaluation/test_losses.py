from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from ibllm_core.data.dataset import NO_FEATURE, CompiledSample, Dataset
from ibllm_core.errors import InvalidDataError
from ibllm_core.evaluation.losses import LossSums, evaluation_losses
from ibllm_core.model.batch import Batch
from ibllm_core.model.imagebind_llm import ImageBindLLM
from tests.conftest import FEATURE_DIM, PAD

ROW_TOKENS = 16


@pytest.fixture
def data() -> Dataset:
    """Eleven samples of different lengths, one of them without a picture."""
    rng = np.random.default_rng(0)
    samples = [
        CompiledSample(
            tokens=rng.integers(3, 60, length).tolist(),
            labels=[(2, length)],
            feature=NO_FEATURE if number == 4 else number % 5,
            row=number + 1,
            instruction="what?",
            answer="that",
        )
        for number, length in enumerate([5, 9, 4, 12, 7, 6, 10, 3, 8, 11, 5])
    ]
    return Dataset.of(samples, rng.standard_normal((5, FEATURE_DIM)).astype(np.float32), [*"abcde"])


def measured(
    model: ImageBindLLM, data: Dataset, forward: Callable[[Batch], Tensor] | None = None, **options: object
) -> LossSums:
    settings: dict[str, object] = {"row_tokens": ROW_TOKENS, "pad_token": PAD, "media_tokens": 0, **options}
    return evaluation_losses(forward or model, data, module=model, **settings)  # type: ignore[arg-type]


def test_losses_are_means_over_label_tokens_of_each_variant(open_model: ImageBindLLM, data: Dataset) -> None:
    metrics = measured(open_model, data).metrics()
    blind = Dataset.of(
        [
            CompiledSample(
                tokens=data.tokens_T[start:end].tolist(),
                labels=[(2, int(end - start))],
                feature=NO_FEATURE,
                row=1,
                instruction="",
                answer="",
            )
            for start, end in zip(data.starts_S, data.starts_S[1:], strict=False)
        ],
        data.features,
        [*"abcde"],
    )
    words_alone = measured(open_model, blind).metrics()
    assert metrics["eval/loss_before"] == pytest.approx(words_alone["eval/loss"])
    assert len({round(metrics[f"eval/loss{name}"], 6) for name in ("", "_shuffled", "_before")}) == 3
    assert len({round(value, 6) for value in words_alone.values()}) == 1


@pytest.mark.parametrize("world_size", [2, 3, 16])
@pytest.mark.parametrize("limit", [None, 1, 7])
def test_ranks_together_sum_what_one_alone_sums(
    open_model: ImageBindLLM, data: Dataset, world_size: int, limit: int | None
) -> None:
    alone = measured(open_model, data, limit=limit, rows_per_batch=2)
    shared = [
        measured(open_model, data, limit=limit, rows_per_batch=2, rank=rank, world_size=world_size).sums
        for rank in range(world_size)
    ]
    torch.testing.assert_close(sum(shared), alone.sums, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("world_size", [1, 2, 3, 16])
def test_every_rank_makes_as_many_passes_as_the_others(
    open_model: ImageBindLLM, data: Dataset, world_size: int
) -> None:
    passes = []
    for rank in range(world_size):
        batches: list[Batch] = []

        def counting(batch: Batch, seen: list[Batch] = batches) -> Tensor:
            seen.append(batch)
            losses: Tensor = open_model(batch)
            return losses

        measured(open_model, data, counting, rows_per_batch=2, rank=rank, world_size=world_size)
        passes.append(len(batches))
    assert len(set(passes)) == 1 and passes[0] > 0


def test_the_training_is_left_as_it_was(open_model: ImageBindLLM, data: Dataset) -> None:
    open_model.train()
    open_model.llama.model.layers[0].eval()
    modes = [part.training for part in open_model.modules()]
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    seen = []

    def forward(batch: Batch) -> Tensor:
        seen.append((torch.is_grad_enabled(), open_model.training))
        losses: Tensor = open_model(batch)
        return losses

    measured(open_model, data, forward)
    assert set(seen) == {(False, False)}
    assert torch.is_grad_enabled()
    assert [part.training for part in open_model.modules()] == modes
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    assert all(parameter.grad is None for parameter in open_model.parameters())


def test_the_mode_comes_back_after_an_error_too(open_model: ImageBindLLM, data: Dataset) -> None:
    def broken(batch: Batch) -> Tensor:
        raise RuntimeError("the device is gone")

    open_model.train()
    with pytest.raises(RuntimeError, match="gone"):
        measured(open_model, data, broken)
    assert open_model.training


def test_a_variant_may_be_left_out(open_model: ImageBindLLM, data: Dataset) -> None:
    told: list[tuple[int, int]] = []
    found = measured(open_model, data, variants=("right", "shuffled"), tell=lambda *step: told.append(step))
    assert found.metrics().keys() == {"eval/loss", "eval/loss_shuffled"}
    whole = measured(open_model, data).metrics()
    assert found.metrics() == pytest.approx({name: whole[name] for name in found.metrics()})
    assert told == [(step, len(told)) for step in range(len(told))]


def test_data_without_samples_gives_no_losses(open_model: ImageBindLLM, data: Dataset) -> None:
    assert measured(open_model, data, limit=0).metrics() == {}


def test_a_sample_longer_than_a_row_says_what_to_change(open_model: ImageBindLLM, data: Dataset) -> None:
    with pytest.raises(InvalidDataError, match="12 tokens, a packed row only 8: raise"):
        measured(open_model, data, row_tokens=8)
