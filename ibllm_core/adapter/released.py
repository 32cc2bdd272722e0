"""The released checkpoints, both ways.

``7B-pretrained.pth`` is stage 1, ``7B.pth`` stage 2, ``7B-beta.pth`` stage 2 with the legacy bind network. They are
pickles of tensors; no code of theirs runs. Dtypes stay as they are, so that what is imported is exported bit by bit.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ibllm_core.adapter import released_layout as layout
from ibllm_core.adapter.files import check_finite, check_shapes
from ibllm_core.adapter.header import Adapter, AdapterHeader
from ibllm_core.bases.layout import to_half_split, to_interleaved
from ibllm_core.contract.adapter_config import LINEARS, AdapterConfig, LoraConfig, ValueGateConfig
from ibllm_core.errors import InvalidSpecError, InvalidWeightsError

BASE = "Open-Chinese-LLaMA-7B"  # what the published files were trained on; with another LLaMA they write nonsense
ENCODER = "imagebind"
_DROPPED = "prefix_projector_norm."  # left over in early files, used by nothing


def read_released(path: Path, *, base: str = BASE, vocab_size: int | None = None) -> Adapter:
    """Import a released checkpoint; its header says which stage it is.

    Raises ``InvalidWeightsError``, which names file and key, where the file is no pickle of tensors, or does not hold
    exactly the keys of its stage.
    """
    tensors = check_finite(_load(path), str(path))
    shape = _Shape.of(tensors, path)
    keys = shape.keys()
    gates = [layout.gate_key(layer) for layer in range(shape.num_layers)]
    expected = {key.released for key in keys} | set(gates)
    optional = {key.released for key in layout.norm_keys(shape.num_layers)} if shape.stage == "stage1" else set()
    kept_norms = optional & tensors.keys()
    if kept_norms and kept_norms != optional:
        expected |= optional  # some norms without the others: say which are missing
    found = {name for name in tensors if name not in kept_norms or name in expected}
    check_shapes(dict.fromkeys(found), dict.fromkeys(expected), str(path))
    ours = {}
    for key in [*keys, *(k for k in layout.norm_keys(shape.num_layers) if k.released in kept_norms)]:
        tensor = tensors[key.released]
        ours[key.ours] = to_half_split(tensor, shape.num_heads) if key.layout == "rotary" else tensor
    ours["fusion.gates"] = torch.stack([tensors[name].flatten() for name in gates])
    header = AdapterHeader(
        stage=shape.stage,
        config=shape.config(),
        feature_dim=tensors["image_bind_proj.weight"].shape[1],
        vocab_size=vocab_size,
        template="alpaca",
        base=base,
        base_sha256=None,
        encoder=ENCODER,
    )
    return Adapter(header=header, tensors=ours)


def write_released(path: Path, adapter: Adapter) -> None:
    """Export an adapter in the released layout, as a pickle of tensors that the released loader reads.

    ``InvalidSpecError`` where that layout cannot hold it: another fusion than ``value_gate``, a scaled LoRA, or fewer
    than all seven linears.
    """
    tensors = adapter.tensors
    _check_fits(adapter.header, tensors)
    num_layers, num_heads = tensors["fusion.gates"].shape
    keys = list(layout.bind_keys(legacy=adapter.header.config.bind_norm == "legacy")) + list(layout.query_keys())
    if adapter.header.stage == "stage2":
        keys += layout.tuning_keys(num_layers)
    keys += [key for key in layout.norm_keys(num_layers) if key.ours in tensors]
    released = {}
    for key in keys:
        tensor = tensors[key.ours]
        released[key.released] = to_interleaved(tensor, num_heads) if key.layout == "rotary" else tensor
    for layer, gates in enumerate(tensors["fusion.gates"]):
        released[layout.gate_key(layer)] = gates.reshape(1, num_heads, 1, 1)
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in released.items()}
    torch.save({"model": plain}, path)


class _Shape:
    """What a released file's own tensors say about it."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.num_layers = tensors["prefix_query.weight"].shape[0]
        self.num_heads = tensors[layout.gate_key(0)].numel()
        self.legacy = "image_bind_norm_1.bias" in tensors
        low_rank = tensors.get("llama.layers.0.attention.lora_wq_l1.weight")
        self.rank = None if low_rank is None else low_rank.shape[0]
        self.stage = "stage1" if self.rank is None else "stage2"

    @staticmethod
    def of(tensors: Mapping[str, Tensor], path: Path) -> _Shape:
        try:
            return _Shape(tensors)
        except KeyError as error:
            key = str(error.args[0])
            raise InvalidWeightsError(
                f"{path}: {key} is missing: expected a whole released ImageBind-LLM checkpoint", file=str(path), key=key
            ) from error

    def keys(self) -> list[layout.Key]:
        keys = [*layout.bind_keys(legacy=self.legacy), *layout.query_keys()]
        if self.stage == "stage2":
            keys += [*layout.tuning_keys(self.num_layers), *layout.norm_keys(self.num_layers)]
        return keys

    def config(self) -> AdapterConfig:
        return AdapterConfig(
            fusion=ValueGateConfig(),
            bind_norm="legacy" if self.legacy else "rms",
            lora=LoraConfig(rank=self.rank) if self.rank else LoraConfig(),
            preset="released",
        )


def _load(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise InvalidWeightsError(
            f"{path} is no readable checkpoint of tensors ({str(error).splitlines()[0][:200]}): fetch it again; "
            "nothing of it was run",
            file=str(path),
        ) from error
    tensors = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise InvalidWeightsError(
            f"{path} holds no dictionary of tensors: expected a released ImageBind-LLM checkpoint", file=str(path)
        )
    renamed = {
        name.replace("llma.", "llama.", 1) if name.startswith("llma.") else name: t for name, t in tensors.items()
    }
    return {name: tensor for name, tensor in renamed.items() if not name.startswith(_DROPPED)}


def _check_fits(header: AdapterHeader, tensors: Mapping[str, Tensor]) -> None:
    config, tuned, problem = header.config, header.stage == "stage2", ""
    projections = "llama.model.layers.0.self_attn.{}_proj.lora_up.weight"
    if not isinstance(config.fusion, ValueGateConfig):
        problem = f"fusion {config.fusion.kind!r}, and the released layout only knows 'value_gate'"
    elif config.bind_norm == "layer":
        problem = "LayerNorm without biases in the bind network, and the released layout only knows 'rms' and 'legacy'"
    elif tuned and config.lora.scale != 1.0:
        problem = f"LoRA scaled by {config.lora.scale}, and the released layout has no scale"
    elif tuned and set(config.lora.targets) != set(LINEARS):
        problem = f"LoRA on {len(config.lora.targets)} of 7 linears, and the released layout has all"
    elif tuned and tensors[projections.format("q")].shape[0] != tensors[projections.format("k")].shape[0]:
        problem = "grouped queries, and the released layout has a key and value for each head"
    if problem:
        raise InvalidSpecError(f"the adapter cannot be exported: it has {problem}; keep it as safetensors")
