"""ImageBind-LLM put together: bind network, fusion, frozen LLaMA.

Shape suffixes: B rows, T tokens of a row or of a packed batch, S segments (samples with media), F feature dimension, C
model dimension, N label tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.contract.job_spec import TrainingStage
from ibllm_core.model import attention, backbone
from ibllm_core.model.batch import Batch
from ibllm_core.model.bind import BindNetwork
from ibllm_core.model.fusion.build import build_fusion
from ibllm_core.model.head import frozen_head_losses
from ibllm_core.model.lora import adapt_linears

PAPER = AdapterConfig()


class ImageBindLLM(nn.Module):
    """The trainable parts of a stage around a frozen LLaMA, which is changed in place.

    Raises ``InvalidSpecError`` where the configuration does not fit the base.
    """

    def __init__(
        self, llama: LlamaForCausalLM, feature_dim: int, config: AdapterConfig = PAPER, stage: TrainingStage = "stage1"
    ) -> None:
        super().__init__()
        self.config = config
        self.shape = backbone.shape_of(llama)
        dtype = next(llama.parameters()).dtype
        backbone.fuse_norms(llama)
        attention.install(llama)
        self.bind_network = BindNetwork(feature_dim, self.shape.model_dim, config.bind_norm).to(dtype)
        self.fusion = build_fusion(config.fusion, self.shape).to(dtype)
        if stage == "stage2":
            adapt_linears(llama.model.layers, config.lora)
        self.fusion.attach(list(llama.model.layers))
        self.llama = llama

    def condition(self, features_SF: Tensor) -> Tensor:
        """What media is to the layers; depends on no text, so that it is computed once a request."""
        return self.fusion.condition(self.bind_network(features_SF))

    def forward(self, batch: Batch) -> Tensor:
        """Cross-entropy of every label token of the batch, ``[N]`` in float32; no labels give ``[0]`` with a graph."""
        labelled_NC = self.packed_hidden(batch).index_select(0, batch.places_N)
        return frozen_head_losses(labelled_NC, self.llama.lm_head.weight, batch.targets_N)

    def packed_hidden(self, batch: Batch) -> Tensor:
        """Final hidden states ``[T, C]`` of a batch."""
        media = self.fusion.media(self.condition(batch.features_SF), batch.segments_T[None])
        words_BTC = self.llama.model.embed_tokens(batch.tokens_T[None])
        embedded_TC = self.fusion.embed(words_BTC, batch.positions_T[None], media)[0]
        return backbone.packed_hidden_states(self.llama, embedded_TC, batch.positions_T, batch.blocks, media)

    def hidden(
        self,
        tokens_BT: Tensor,
        positions_BT: Tensor,
        mask: Tensor,
        condition: Tensor,
        segments_BT: Tensor,
        *,
        cache: Any = None,
    ) -> Tensor:
        """Final hidden states ``[B, T, C]`` of generation, with the condition of its row's segment at every token."""
        media = self.fusion.media(condition, segments_BT)
        embedded_BTC = self.fusion.embed(self.llama.model.embed_tokens(tokens_BT), positions_BT, media)
        return backbone.hidden_states(self.llama, embedded_BTC, positions_BT, mask, media, cache)

    @torch.no_grad()
    def gate_magnitudes(self) -> Tensor | None:
        """How open the gates are, ``|g|`` as ``[layers, groups]`` in float32 on their device; None without gates."""
        return None if self.fusion.gates is None else self.fusion.gates.detach().float().abs()
