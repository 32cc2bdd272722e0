"""Stage 2's LoRA, biases and norms folded into a plain ``LlamaForCausalLM`` folder, where that is exact.

The media part stays an adapter of its own, for the merged base. Folding is not exact where a fusion needs the base's
own projections: ``value_gate`` takes W_v, ``adapter_prefix`` W_k and W_v, without their low-rank updates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from ibllm_core.adapter import files
from ibllm_core.adapter.header import Adapter
from ibllm_core.bases.load import load_base, weights_sha256
from ibllm_core.contract.adapter_config import LINEARS
from ibllm_core.errors import InvalidSpecError
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.lora import AdaptedLinear
from ibllm_core.model.stages import ADAPTED_GROUPS, group_of

MEDIA_ADAPTER = "media_adapter"
_NEEDED_PLAIN = {"value_gate": {"v_proj"}, "adapter_prefix": {"k_proj", "v_proj"}}


def write_merged(folder: Path, base: Path, adapter: Adapter, *, dtype: torch.dtype, text_only: bool = False) -> None:
    """Write the merged model and its tokenizer, and beside it the media part as ``media_adapter/``.

    Sums are made in float64 and rounded once to ``dtype``. Raises ``InvalidSpecError`` for a stage-1 adapter, and where
    media would see other weights than before; with ``text_only`` the media part is left out instead.
    """
    header = adapter.header
    if header.stage != "stage2":
        raise InvalidSpecError("a stage-1 adapter has nothing to fold into the base: merge a stage-2 adapter")
    touched = _NEEDED_PLAIN.get(header.config.fusion.kind, set()) & set(header.config.lora.targets)
    if touched and not text_only:
        raise InvalidSpecError(
            f"fusion {header.config.fusion.kind!r} needs the base's own {' and '.join(sorted(touched))}, which LoRA "
            "changes, so that a merged model would treat media differently: keep base and adapter apart, or merge for "
            "text only"
        )
    loaded = load_base(base, torch.float32)
    model = ImageBindLLM(loaded.llama, header.feature_dim, header.config, "stage2").double()
    files.install(model, adapter, base_sha256=loaded.sha256, source="the adapter")
    merged = _fold(model.llama).to(dtype)
    merged.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    if not text_only:
        kept = {name: t for name, t in adapter.tensors.items() if group_of(name) in ADAPTED_GROUPS["stage1"]}
        changes = {"stage": "stage1", "base": folder.name, "base_sha256": weights_sha256(folder)}
        files.write(folder / MEDIA_ADAPTER, Adapter(header=header.model_copy(update=changes), tensors=kept))


def _fold(llama: LlamaForCausalLM) -> LlamaForCausalLM:
    settings = llama.config.to_dict() | {"attention_bias": True, "mlp_bias": True}
    settings.pop("quantization_config", None)
    with torch.device("meta"):
        plain = LlamaForCausalLM(LlamaConfig(**settings))
    weights: dict[str, Tensor] = {
        n: p.detach() for n, p in llama.named_parameters() if group_of(f"llama.{n}") != "lora"
    }
    for index, layer in enumerate(llama.model.layers):
        for path, block in (("self_attn", layer.self_attn), ("mlp", layer.mlp)):
            for name in LINEARS:
                linear: Any = getattr(block, name, None)
                if isinstance(linear, AdaptedLinear):
                    prefix = f"model.layers.{index}.{path}.{name}"
                    weights.pop(f"{prefix}.base.weight")
                    weights.pop(f"{prefix}.base.bias", None)
                    weights[f"{prefix}.weight"], weights[f"{prefix}.bias"] = _folded(linear)
    plain.load_state_dict(weights, strict=not plain.config.tie_word_embeddings, assign=True)
    plain.tie_weights()
    return plain


def _folded(linear: AdaptedLinear) -> tuple[nn.Parameter, nn.Parameter]:
    weight = linear.base.weight
    if linear.lora_down is not None and linear.lora_up is not None:
        weight = weight + linear.scale * (linear.lora_up.weight @ linear.lora_down.weight)
    bias = weight.new_zeros(weight.shape[0])
    for part in (linear.base.bias, linear.bias):
        bias = bias if part is None else bias + part
    return nn.Parameter(weight, requires_grad=False), nn.Parameter(bias, requires_grad=False)
