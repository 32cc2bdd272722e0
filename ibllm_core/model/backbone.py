"""The frozen LLaMA: loading it, and the two ways through it that the model needs.

Shape suffixes: B rows, T tokens of a row, C model dimension, V vocabulary, N label tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from ibllm_core.errors import InvalidSpecError


@dataclass(frozen=True, kw_only=True)
class BaseShape:
    """The numbers of a base model that the parts around it need."""

    model_dim: int
    num_layers: int
    num_heads: int
    vocab_size: int
    block_parameters: int


def load_backbone(folder: Path, dtype: torch.dtype) -> LlamaForCausalLM:
    """Load a ``LlamaForCausalLM`` from a safetensors folder, frozen and in eval mode.

    Raises ``InvalidSpecError`` when the folder holds another architecture.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
    if not isinstance(model, LlamaForCausalLM):
        raise InvalidSpecError(
            f"the base in {folder.name} is a {type(model).__name__}; only LlamaForCausalLM is supported: choose "
            "another base model",
        )
    model.requires_grad_(False)
    model.eval()
    return model


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer that lies beside the base's weights."""
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def shape_of(llama: LlamaForCausalLM) -> BaseShape:
    """Read a backbone's dimensions; ``block_parameters`` is N of the 4N FLOPs a frozen token costs."""
    config = llama.config
    return BaseShape(
        model_dim=config.hidden_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        vocab_size=config.vocab_size,
        block_parameters=sum(p.numel() for layer in llama.model.layers for p in layer.parameters()),
    )


def hidden_states(llama: LlamaForCausalLM, tokens_BT: Tensor, positions_BT: Tensor) -> Tensor:
    """Final hidden states ``[B, T, C]`` of packed rows; positions that restart at 0 begin a new segment.

    transformers derives the block-diagonal mask from the positions, so that segments never see each other.
    """
    output = llama.model(input_ids=tokens_BT, position_ids=positions_BT, use_cache=False)
    hidden_BTC: Tensor = output.last_hidden_state
    return hidden_BTC


def label_losses(llama: LlamaForCausalLM, hidden_BTC: Tensor, labels_BT: Tensor, ignore: int) -> Tensor:
    """Cross-entropy of each label token ``[N]``; the head runs on label positions alone."""
    targets = labels_BT[:, 1:]
    chosen = targets != ignore
    logits_NV = llama.lm_head(hidden_BTC[:, :-1][chosen])
    return nn.functional.cross_entropy(logits_NV.float(), targets[chosen], reduction="none")
