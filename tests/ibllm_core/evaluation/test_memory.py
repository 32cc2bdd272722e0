import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ibllm_core.evaluation.memory import answer_bytes, batches_of, row_bytes, usable_bytes
from ibllm_core.model.backbone import BaseShape

LLAMA = BaseShape(model_dim=4096, hidden_dim=11008, num_layers=32, num_heads=32, num_kv_heads=32, vocab_size=32000)


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 200), st.integers(1, 8))
def test_batches_hold_everything_once_and_fit(needed: list[int], room: int, most: int) -> None:
    batches = batches_of(needed, room, most)
    assert sorted(number for batch in batches for number in batch) == list(range(len(needed)))
    for batch in batches:
        largest = max(needed[number] for number in batch)
        assert len(batch) == 1 or (len(batch) <= most and len(batch) * largest <= room)


def test_batches_are_as_large_as_fits() -> None:
    assert [len(batch) for batch in batches_of([10] * 7, 30, 128)] == [3, 3, 1]


def test_keys_and_values_of_llama_take_half_a_megabyte_a_token() -> None:
    assert answer_bytes(LLAMA, 2, 100, 21) - answer_bytes(LLAMA, 2, 100, 20) == 2 * 32 * 4096 * 2


def test_a_longer_row_takes_more() -> None:
    assert row_bytes(LLAMA, 2, 512) > 2 * row_bytes(LLAMA, 2, 256)


@pytest.mark.parametrize("device", ["cpu"])
def test_some_memory_is_usable(device: str) -> None:
    assert 1 << 20 < usable_bytes(torch.device(device)) < 1 << 50
