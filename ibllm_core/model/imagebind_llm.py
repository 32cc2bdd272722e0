"""ImageBind-LLM put together: bind network, fusion, frozen LLaMA.

Shape suffixes: B rows, T tokens of a row, S segments (samples), F feature dimension, C model dimension, N label tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from ibllm_core.model import backbone
from ibllm_core.model.bind import BindNetwork, NormName
from ibllm_core.model.injection import Injector, TokenAdd
from ibllm_core.model.lora import adapt_linears

IGNORE_LABEL = -100


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Packed rows with the features of their segments; every tensor lies on one device."""

    tokens_BT: Tensor
    positions_BT: Tensor
    labels_BT: Tensor
    segments_BT: Tensor
    features_SF: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(**{name: tensor.to(device) for name, tensor in vars(self).items()})


class ImageBindLLM(nn.Module):
    """The trainable parts around a frozen LLaMA. ``lora_rank`` 0 is stage 1, above 0 stage 2."""

    def __init__(
        self, llama: LlamaForCausalLM, feature_dim: int, *, norm: NormName = "rms", lora_rank: int = 0
    ) -> None:
        super().__init__()
        shape = backbone.shape_of(llama)
        self.shape = shape
        dtype = next(llama.parameters()).dtype
        self.bind_network = BindNetwork(feature_dim, shape.model_dim, norm).to(dtype)
        self.fusion = TokenAdd(shape.num_layers).to(dtype)
        self.llama = llama
        if lora_rank:
            adapt_linears(llama.model.layers, lora_rank)
        self.injector = Injector(llama.model.layers)

    def layer_vectors(self, features_SF: Tensor) -> Tensor:
        """The table ``u_LSC`` that media adds to the residual stream; independent of the text."""
        table_LSC: Tensor = self.fusion(self.bind_network(features_SF))
        return table_LSC

    def forward(self, batch: Batch) -> Tensor:
        """Cross-entropy of every label token of the batch, ``[N]`` in fp32."""
        with self.injector.use(self.layer_vectors(batch.features_SF), batch.segments_BT):
            return self.plain_losses(batch)

    def plain_losses(self, batch: Batch) -> Tensor:
        """The same, with no media at all: what the words alone predict."""
        hidden_BTC = backbone.hidden_states(self.llama, batch.tokens_BT, batch.positions_BT)
        return backbone.label_losses(self.llama, hidden_BTC, batch.labels_BT, IGNORE_LABEL)

    @torch.no_grad()
    def gate_magnitudes(self) -> Tensor:
        """``|g|`` as ``[L, groups]`` in fp32, on the device of the gates."""
        return self.fusion.gates.detach().float().abs()
