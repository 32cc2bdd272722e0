"""The estimate against what autograd really keeps, and against the peak of a real step."""

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.contract.job_spec import TrainingStage
from ibllm_core.data.collate import collate
from ibllm_core.data.dataset import Dataset
from ibllm_core.model.batch import Batch
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.planning.activations import MicroBatch, Training, activation_bytes, logit_bytes, saved_bytes
from tests.conftest import sample
from tests.ibllm_core.planning.models import FEATURE_DIM, paper, real_model, size_of
from tests.memory import saved_bytes as really_saved

SMALL = {
    "hidden_size": 48,
    "intermediate_size": 112,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 80,
    "max_position_embeddings": 256,
}
WIDE = {**SMALL, "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 6, "num_key_value_heads": 4}
ROWS, ROW_TOKENS, SAMPLE_TOKENS = 2, 96, 24
LABELS_A_SAMPLE = 10


def step_of(
    config: dict[str, Any], stage: TrainingStage, dtype: torch.dtype, **adapter: Any
) -> tuple[ImageBindLLM, Batch, Training, MicroBatch]:
    """A model with full rows for it, and the same in numbers."""
    model = real_model(config, stage, dtype=dtype, **adapter)
    lead, a_row = model.fusion.media_tokens, ROW_TOKENS // SAMPLE_TOKENS
    length = SAMPLE_TOKENS - lead
    samples = [sample([7] * length, length - LABELS_A_SAMPLE, index) for index in range(ROWS * a_row)]
    features = np.ones((len(samples), FEATURE_DIM), dtype=np.float32)
    data = Dataset.of(samples, features, [str(index) for index in range(len(samples))])
    rows = [range(row * a_row, (row + 1) * a_row) for row in range(ROWS)]
    batch = collate(data, rows, row_tokens=ROW_TOKENS, pad_token=0, media_tokens=lead)
    training = Training(
        base=size_of(config),
        adapter=AdapterConfig.model_validate(adapter),
        stage=stage,
        feature_dim=FEATURE_DIM,
        element_bytes=dtype.itemsize,
        is_on_gpu=False,
    )
    counts = MicroBatch(tokens=ROWS * ROW_TOKENS, samples=len(samples), labels=batch.num_labels, padding=1.0)
    return model, batch, training, counts


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("config", [SMALL, WIDE], ids=["small", "wide"])
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_what_a_step_keeps_is_estimated(config: dict[str, Any], stage: TrainingStage, dtype: torch.dtype) -> None:
    model, batch, training, counts = step_of(config, stage, dtype, lora={"rank": 4})
    assert saved_bytes(training, counts) == pytest.approx(really_saved(model, batch), rel=0.05)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
@pytest.mark.parametrize(
    "adapter",
    [
        {"fusion": "value_gate"},
        {"fusion": {"kind": "adapter_prefix", "prompts": 5}},
        {"fusion": {"kind": "concat", "tokens": 3}},
        {"lora": {"rank": 4, "dropout": 0.1}},
        {"lora": {"rank": 4, "targets": ["q_proj", "v_proj"]}},
    ],
    ids=["value_gate", "adapter_prefix", "concat", "dropout", "two targets"],
)
def test_other_adapters_keep_no_more_than_estimated(adapter: dict[str, Any], stage: TrainingStage) -> None:
    model, batch, training, counts = step_of(WIDE, stage, torch.bfloat16, **adapter)
    model.train()
    assert 0.99 <= saved_bytes(training, counts) / really_saved(model, batch) < 1.25


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_the_peak_of_a_step_stays_below_the_estimate(stage: TrainingStage) -> None:
    model, batch, training, counts = step_of(WIDE, stage, torch.bfloat16)
    peak = peak_beside_parameters(model, lambda: model(batch).sum().backward())
    assert 1.0 <= (activation_bytes(training, counts) + logit_bytes(training, counts)) / peak < 1.15


def test_llama_7b_keeps_what_is_published() -> None:
    counts = MicroBatch(tokens=8192, samples=0, labels=0)
    assert saved_bytes(paper(), counts) / counts.tokens == pytest.approx(3.70e6, rel=0.005)


def test_checkpointing_keeps_a_fraction() -> None:
    counts = MicroBatch(tokens=8192, samples=32, labels=4000)
    assert activation_bytes(paper(checkpoints_activations=True), counts) < activation_bytes(paper(), counts) / 6


class _Live(TorchDispatchMode):
    """Counts the bytes of live storages that operations made."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.peak, self._now, self._known = 0, 0, known

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self._known:
                storage = tensor.untyped_storage()
                self._known.add(storage._cdata)
                self._now += storage.nbytes()
                weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())
                self.peak = max(self.peak, self._now)
        return result

    def _forget(self, key: int, num_bytes: int) -> None:
        self._known.discard(key)
        self._now -= num_bytes


def peak_beside_parameters(model: ImageBindLLM, run: Callable[[], None]) -> int:
    with _Live({parameter.untyped_storage()._cdata for parameter in model.parameters()}) as live:
        run()
    return live.peak
