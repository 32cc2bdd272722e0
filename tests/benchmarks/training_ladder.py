"""From the simple loop to ours, one lever after the other: what lies between them (``training.py`` times it).

Shape suffixes: S segments, T tokens of a micro-batch side by side, N label tokens, C model dimension, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain, islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from ibllm_core.bases.skeleton import finish
from ibllm_core.contract.adapter_config import AdapterConfig, FusionKind
from ibllm_core.contract.job_spec import Hyperparameters
from ibllm_core.data.collate import collate
from ibllm_core.data.corpus import Corpus
from ibllm_core.data.dataset import Dataset
from ibllm_core.data.packing import Sampler
from ibllm_core.model import attention, backbone
from ibllm_core.model.batch import Batch
from ibllm_core.model.fusion.base import Media
from ibllm_core.model.head import frozen_head_losses
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.stages import freeze_for
from tests.benchmarks.simple_loop import BETAS, DECAY, MICRO_SAMPLES, NO_LABEL, RATE, SimpleLoop
from tests.benchmarks.training_data import Material
from workers.train.engine.build import build_engine
from workers.train.feed import Feed, Step
from workers.train.step import train_step

CPU = torch.device("cpu")
EPOCHS, MANY = 100, 1 << 20


class Packed(SimpleLoop):
    """The samples of a micro-batch side by side in one row, each of which sees itself alone by a dense mask."""

    def loss(self, members: Sequence[int]) -> Tensor:
        batch = self._collated(members)
        hidden_TC = self.hidden(batch)
        targets_T = torch.full((len(hidden_TC),), NO_LABEL).index_copy(0, batch.places_N, batch.targets_N)
        return F.cross_entropy(self.llama.lm_head(hidden_TC).float(), targets_T, ignore_index=NO_LABEL)

    def hidden(self, batch: Batch) -> Tensor:
        """``[T, C]``."""
        samples_T = (batch.positions_T == 0).cumsum(0)
        mask = (samples_T[:, None] == samples_T[None]).tril()
        penalties = torch.zeros(mask.shape, dtype=self.dtype).masked_fill(~mask, torch.finfo(self.dtype).min)
        output = self.llama.model(
            batch.tokens_T[None],
            attention_mask=penalties[None, None],
            position_ids=batch.positions_T[None],
            use_cache=False,
        )
        hidden_TC: Tensor = output.last_hidden_state[0]
        return hidden_TC

    def _collated(self, members: Sequence[int]) -> Batch:
        lengths = self.data.dataset.lengths()[list(members)]
        batch = collate(self.data.dataset, [members], row_tokens=int(lengths.sum()), pad_token=0)
        self._condition(members, batch.segments_T[None])
        return batch


class LabelledHead(Packed):
    """The head on label tokens alone."""

    def loss(self, members: Sequence[int]) -> Tensor:
        batch = self._collated(members)
        return self.label_losses(self.hidden(batch)[batch.places_N], batch.targets_N).mean()

    def label_losses(self, labelled_NC: Tensor, targets_N: Tensor) -> Tensor:
        return F.cross_entropy(self.llama.lm_head(labelled_NC).float(), targets_N, reduction="none")


class WithinSamples(LabelledHead):
    """Attention within samples at no cost for the others, by our kernels."""

    def __init__(self, llama: LlamaForCausalLM, data: Material, micro_samples: int = MICRO_SAMPLES) -> None:
        super().__init__(llama, data, micro_samples=micro_samples)
        attention.install(llama)

    def hidden(self, batch: Batch) -> Tensor:
        embedded_TC = self.llama.model.embed_tokens(batch.tokens_T)
        media = Media(lines=(), segments_BT=batch.segments_T[None])  # the hooks of the simple loop see to it
        return backbone.packed_hidden_states(self.llama, embedded_TC, batch.positions_T, batch.blocks, media)


class Fused(WithinSamples):
    """Our norms and our head's loss, torch's fused AdamW, and no look at the loss before the step is over."""

    def __init__(self, llama: LlamaForCausalLM, data: Material, micro_samples: int = MICRO_SAMPLES) -> None:
        super().__init__(llama, data, micro_samples=micro_samples)
        backbone.fuse_norms(llama)

    def make_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.trained, lr=RATE, betas=BETAS, weight_decay=DECAY, fused=True)

    def label_losses(self, labelled_NC: Tensor, targets_N: Tensor) -> Tensor:
        return frozen_head_losses(labelled_NC, self.llama.lm_head.weight, targets_N)

    def step(self, members: Sequence[int]) -> float:
        parts = [members[start : start + self.micro_samples] for start in range(0, len(members), self.micro_samples)]
        total = torch.zeros(())
        for part in parts:
            loss = self.loss(part) / len(parts)
            torch.autograd.backward(loss)
            total += loss.detach()
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total.item()


class Ours:
    """``workers.train`` itself: its feed, its engine, its step; a global batch is one micro-batch unless told."""

    def __init__(
        self,
        llama: LlamaForCausalLM,
        dataset: Dataset,
        *,
        row_tokens: int,
        rows: int,
        micro_rows: int | None = None,
        fusion: FusionKind = "value_gate",
        zero_stage: int = 0,
        device: torch.device = CPU,
    ) -> None:
        with device:
            self.model = ImageBindLLM(llama, dataset.feature_dim, AdapterConfig.model_validate({"fusion": fusion}))
        freeze_for("stage1", self.model)
        self.engine = build_engine(
            self.model, Hyperparameters(), zero_stage=zero_stage, dtype=llama.dtype, device=device
        )
        self.device = device
        corpus = Corpus([dataset])
        self.feed = Feed(
            corpus=corpus,
            sampler=Sampler(
                sizes=corpus.sizes,
                weights=corpus.weights,
                seed=0,
                epochs=EPOCHS,
                row_tokens=row_tokens,
                rows_per_step=rows,
            ),
            rank=0,
            world_size=1,
            micro_rows=micro_rows or rows,
            media_tokens=0,
            pad_token=0,
        )

    def steps(self, count: int) -> list[Step]:
        """The first full global batches."""
        steps = self.feed.steps(1, MANY, pin=self.device.type == "cuda")
        return list(islice((step for step in steps if not step.is_epochs_last), count))

    def step(self, step: Step) -> Tensor:
        """The loss, on the device."""
        return train_step(self.engine, step, 1.0, self.device)


def members_of(step: Step) -> list[int]:
    """The samples of a global batch."""
    return list(chain.from_iterable(step.rows))


def twin(llama: LlamaForCausalLM) -> LlamaForCausalLM:
    """The same frozen weights under layers of their own, which may be hooked."""
    return copy.deepcopy(llama, memo={id(parameter): parameter for parameter in llama.parameters()})


def in_dtype(llama: LlamaForCausalLM, dtype: torch.dtype) -> LlamaForCausalLM:
    """A copy of the base in other numbers."""
    return finish(copy.deepcopy(llama).to(dtype), dtype)
