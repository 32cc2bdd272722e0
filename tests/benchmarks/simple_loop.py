"""A simple trainer of stage 1 to compare with, which works as the released one does; written from its description.

Every sample is padded to 96 tokens, four of them make a micro-batch. The frozen encoder runs in the loop, on a new
crop each time a picture is seen. The gated value of the bound vector joins every position before the attention's output
projection, attention goes over everything there is, the head over all positions. AdamW is the plain one, the gradient's
norm is computed and not used, and the host waits for the loss of each micro-batch. Float32, as a CPU needs it where the
released code has fp16 autocast.

Shape suffixes: B samples of a micro-batch, S segments, T tokens, C model dimension, H heads, G key-value heads, D head
dimension, X heads times D, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from ibllm_core.encoders.efficientnet_lite import EfficientNetLite0
from ibllm_core.model.bind import BindNetwork
from ibllm_core.model.fusion.base import split_heads
from tests.benchmarks.training_data import Material, encode

WIDTH = 96
MICRO_SAMPLES = 4
NO_LABEL = -100
BETAS, DECAY, RATE = (0.9, 0.95), 0.05, 4e-4


class SimpleLoop:
    """Trains bind network, gates and queries around a frozen base, whose layers it hooks.

    Without ``encoder`` the features are those of ``data``.
    """

    def __init__(
        self,
        llama: LlamaForCausalLM,
        data: Material,
        encoder: EfficientNetLite0 | None = None,
        micro_samples: int = MICRO_SAMPLES,
    ) -> None:
        llama.config._attn_implementation = "eager"
        config = llama.config
        self.llama, self.data, self.encoder, self.micro_samples = llama, data, encoder, micro_samples
        self.dtype = llama.dtype
        self.bind_network = BindNetwork(data.dataset.feature_dim, config.hidden_size)
        self.gates = nn.Parameter(torch.zeros(config.num_hidden_layers, config.num_attention_heads))
        self.queries = nn.Parameter(torch.randn(config.num_hidden_layers, config.hidden_size))
        self.trained = [*self.bind_network.parameters(), self.gates, self.queries]
        self.optimizer = self.make_optimizer()
        self._bound_SC, self._segments_BT, self._seen = torch.empty(0), torch.empty(0), 0
        for index, layer in enumerate(llama.model.layers):
            layer.self_attn.o_proj.register_forward_pre_hook(partial(self._add, index, layer.self_attn))

    def make_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.trained, lr=RATE, betas=BETAS, weight_decay=DECAY)

    def step(self, members: Sequence[int]) -> float:
        """One optimizer step over the samples; returns the mean of the micro-batches' losses."""
        parts = [members[start : start + self.micro_samples] for start in range(0, len(members), self.micro_samples)]
        total = 0.0
        for part in parts:
            loss = self.loss(part) / len(parts)
            total += loss.item()
            if not math.isfinite(total):
                raise ValueError(f"the loss is {total}")
            torch.autograd.backward(loss)
        nn.utils.get_total_norm([parameter.grad for parameter in self.trained if parameter.grad is not None])
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total

    def loss(self, members: Sequence[int]) -> Tensor:
        """Mean over the label tokens of a micro-batch."""
        tokens_BT, targets_BT = padded(self.data, members)
        self._condition(members, torch.arange(len(members))[:, None])
        logits_BTV = self.llama(tokens_BT, use_cache=False).logits
        return F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten(), ignore_index=NO_LABEL)

    def _condition(self, members: Sequence[int], segments_BT: Tensor) -> None:
        """Bind what the samples show; ``segments_BT`` is whose vector each position gets."""
        self._bound_SC = self.bind_network(self.features(members)).to(self.dtype)
        self._segments_BT = segments_BT

    def features(self, members: Sequence[int]) -> Tensor:
        """Of each sample's picture, ``[S, F]``."""
        if self.encoder is None:
            return torch.from_numpy(self.data.dataset.features[list(members)])
        self._seen += 1
        return encode(self.encoder, [self.data.pictures[member] for member in members], crop_seed=self._seen)

    def _add(self, index: int, attention: Any, _projection: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        (found_BTX,) = args
        values_SX = F.linear(self._bound_SC + self.queries[index].to(self.dtype), attention.v_proj.weight)
        values_SHD = split_heads(values_SX, attention.head_dim).repeat_interleave(attention.num_key_value_groups, dim=1)
        gated_SX = (self.gates[index].tanh().to(self.dtype)[:, None] * values_SHD).flatten(1)
        return (found_BTX + gated_SX[self._segments_BT],)


def padded(data: Material, members: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Tokens, and the next token where it is a label, of one sample a row; what exceeds the width is cut off."""
    found = data.dataset.gather(np.asarray(members))
    tokens, targets = torch.zeros(len(members), WIDTH, dtype=torch.long), torch.full((len(members), WIDTH), NO_LABEL)
    ends = np.cumsum(found.lengths_S)
    for row, (start, end) in enumerate(zip(ends - found.lengths_S, ends, strict=True)):
        ids = torch.from_numpy(found.tokens_T[start:end])[:WIDTH].long()
        is_label = torch.from_numpy(found.is_label_T[start:end])[:WIDTH]
        tokens[row, : len(ids)] = ids
        targets[row, : len(ids) - 1] = torch.where(is_label, ids, NO_LABEL)[1:]
    return tokens, targets
