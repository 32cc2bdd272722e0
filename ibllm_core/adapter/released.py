"""The released checkpoints, both ways.

``7B-pretrained.pth`` is stage 1, ``7B.pth`` stage 2, ``7B-beta.pth`` stage 2 with the legacy bind network. They are
pickles of tensors; no code of theirs runs. Dtypes stay as they are, so that what is imported is exported bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from ibllm_core.adapter import released_layout as layout
from ibllm_core.adapter.files import check_finite, check_shapes
from ibllm_core.adapter.header import Adapter, AdapterHeader
from ibllm_core.bases.layout import to_half_split, to_interleaved
from ibllm_core.contract.adapter_config import LINEARS, AdapterConfig, BindNorm, LoraConfig, ValueGateConfig
from ibllm_core.contract.job_spec import TrainingStage
from ibllm_core.errors import InvalidSpecError, InvalidWeightsError

BASE = "Open-Chinese-LLaMA-7B"  # what the published files were trained on; with another LLaMA they write nonsense
ENCODER = "imagebind"
_DROPPED = "prefix_projector_norm."  # left over in early files, used by nothing


def read_released(path: Path) -> Adapter:
    """Import a released checkpoint; its header says which stage it is.

    Raises ``InvalidWeightsError``, which names file and key, where the file is no pickle of tensors, or does not hold
    exactly the keys of its stage in the shapes that belong together.
    """
    tensors = check_finite(_load(path), str(path))
    checkpoint = _Checkpoint(tensors, path)
    keys = checkpoint.keys()
    gates: dict[str, tuple[int, ...]] = {
        layout.gate_key(layer): (1, checkpoint.num_heads, 1, 1) for layer in range(checkpoint.dims.L)
    }
    check_shapes(
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        {key.released: checkpoint.dims.shape(key.shape) for key in keys} | gates,
        str(path),
    )
    ours = {
        key.ours: to_half_split(tensors[key.released], checkpoint.num_heads)
        if key.layout == "rotary"
        else tensors[key.released]
        for key in keys
    }
    ours["fusion.gates"] = torch.stack([tensors[name].flatten() for name in gates])
    header = AdapterHeader(
        stage=checkpoint.stage,
        config=checkpoint.config(),
        feature_dim=checkpoint.dims.F,
        vocab_size=None,
        template="alpaca",
        base=BASE,
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
    partial = path.with_name(path.name + ".part")
    torch.save({"model": plain}, partial)
    partial.replace(path)


class _Checkpoint:
    """What a released file's own tensors say about it; its sizes come from as few of them as can be."""

    def __init__(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        self._tensors, self._path = tensors, path
        self.stage: TrainingStage = "stage2" if any("lora_" in name for name in tensors) else "stage1"
        self.legacy = "image_bind_norm_1.bias" in tensors
        self.num_heads = self._shape(layout.gate_key(0), 4)[1]
        model_dim, feature_dim = self._shape("image_bind_proj.weight", 2)
        rank, hidden_dim = 0, 0
        if self.stage == "stage2":
            rank, hidden_dim = self._shape("llama.layers.0.feed_forward.lora_w2_l1.weight", 2)
        num_layers = self._shape("prefix_query.weight", 2)[0]
        self.dims = layout.Dims(F=feature_dim, C=model_dim, L=num_layers, X=hidden_dim, R=rank)
        if self.num_heads == 0 or model_dim % (2 * self.num_heads):
            raise self._wrong(layout.gate_key(0), f"has {self.num_heads} heads for a model of {model_dim}")

    def keys(self) -> list[layout.Key]:
        """What the stage must hold; of a stage-1 file the norms too, where it has any of them."""
        norms = list(layout.norm_keys(self.dims.L))
        keys = [*layout.bind_keys(legacy=self.legacy), *layout.query_keys()]
        if self.stage == "stage2":
            keys += layout.tuning_keys(self.dims.L)
        if self.stage == "stage2" or any(key.released in self._tensors for key in norms):
            keys += norms
        return keys

    def config(self) -> AdapterConfig:
        try:
            lora = LoraConfig(rank=self.dims.R) if self.stage == "stage2" else LoraConfig()
        except ValidationError as error:
            raise self._wrong("llama.layers.0.feed_forward.lora_w2_l1.weight", f"has rank {self.dims.R}") from error
        bind_norm: BindNorm = "legacy" if self.legacy else "rms"
        return AdapterConfig(fusion=ValueGateConfig(), bind_norm=bind_norm, lora=lora, preset="released")

    def _shape(self, key: str, num_dims: int) -> tuple[int, ...]:
        if key not in self._tensors:
            raise self._wrong(key, "is missing")
        if self._tensors[key].ndim != num_dims:
            raise self._wrong(key, f"has shape {tuple(self._tensors[key].shape)}")
        return tuple(self._tensors[key].shape)

    def _wrong(self, key: str, problem: str) -> InvalidWeightsError:
        return InvalidWeightsError(
            f"{self._path}: {key} {problem}: expected a whole released ImageBind-LLM checkpoint",
            file=str(self._path),
            key=key,
        )


def _load(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        raise InvalidWeightsError(f"{path} does not exist: give the path of a released .pth", file=str(path))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to mean
        raise InvalidWeightsError(
            f"{path} is no readable checkpoint of tensors ({str(error)[:200]!r}): fetch it again; none of it was run",
            file=str(path),
        ) from error
    tensors = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
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
