"""Stage 2's LoRA, biases and norms folded into a plain ``LlamaForCausalLM`` folder, where that is exact.

The media part stays an adapter of its own, for the merged base. Folding is not exact where a fusion needs the base's
own projections: ``value_gate`` takes W_v, ``adapter_prefix`` W_k and W_v, without their low-rank updates.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, PreTrainedTokenizerBase

from ibllm_core.adapter import files
from ibllm_core.adapter.header import Adapter
from ibllm_core.bases.formats import open_source
from ibllm_core.bases.load import weights_sha256
from ibllm_core.bases.source import StoredTensor, WeightSource
from ibllm_core.bases.write import write_folder
from ibllm_core.contract.adapter_config import LINEARS
from ibllm_core.errors import InvalidSpecError
from ibllm_core.model.stages import ADAPTED_GROUPS, group_of

MEDIA_ADAPTER = "media_adapter"
_NEEDED_PLAIN = {"value_gate": {"v_proj"}, "adapter_prefix": {"k_proj", "v_proj"}}


def write_merged(folder: Path, base: Path, adapter: Adapter, *, dtype: torch.dtype, text_only: bool = False) -> None:
    """Write the merged model and its tokenizer, and beside it the media part as ``media_adapter/``.

    Tensor by tensor: sums are made in float64 and rounded once to ``dtype``. Raises ``InvalidSpecError`` for a stage-1
    adapter, and where media would see other weights than before; with ``text_only`` the media part is left out
    instead. ``BaseMismatchError`` names both hashes for another base.
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
    source = open_source(base)
    if header.base_sha256:  # hashing reads all of the base
        files.check_base_sha256(header, weights_sha256(source))
    merged_sha256 = write_folder(MergedSource(source, adapter), folder, dtype)
    if not text_only:
        kept = {name: t for name, t in adapter.tensors.items() if group_of(name) in ADAPTED_GROUPS["stage1"]}
        changes = {"stage": "stage1", "base": folder.name, "base_sha256": merged_sha256}
        files.write(folder / MEDIA_ADAPTER, Adapter(header=header.model_copy(update=changes), tensors=kept))


class MergedSource:
    """A ``WeightSource``: a base as it would be with an adapter's low-rank updates, biases and norms in it."""

    def __init__(self, source: WeightSource, adapter: Adapter) -> None:
        self.path = source.path
        self.config: LlamaConfig = copy.deepcopy(source.config)
        self.config.attention_bias = True
        self.config.mlp_bias = True
        self._source = source
        self._tensors = adapter.tensors
        self._scale = adapter.header.config.lora.scale

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base's own."""
        return self._source.tokenizer()

    def tensors(self) -> Sequence[StoredTensor]:
        """The base's tensors with the adapter's folded in, and a bias for each of the seven linears."""
        stored = {tensor.name: tensor for tensor in self._source.tensors()}
        weights = [tensor for name, tensor in stored.items() if not _is_bias_of_linear(name)]
        biases = [
            replace(
                weight,
                name=_bias_name(weight.name),
                shape=weight.shape[:1],
                dtype=torch.float64,
                read=partial(self._bias, weight, stored.get(_bias_name(weight.name))),
            )
            for weight in weights
            if _is_linear(weight.name)
        ]
        return [*(self._weight(tensor) for tensor in weights), *biases]

    def _weight(self, stored: StoredTensor) -> StoredTensor:
        if _is_linear(stored.name):
            return replace(stored, dtype=torch.float64, read=partial(self._linear, stored))
        norm = self._tensors.get(f"llama.{stored.name}")
        return stored if norm is None else replace(stored, dtype=norm.dtype, read=norm.clone)

    def _linear(self, stored: StoredTensor) -> Tensor:
        weight = stored.read().double()
        prefix = f"llama.{stored.name.removesuffix('.weight')}"
        down, up = (self._tensors.get(f"{prefix}.{part}.weight") for part in ("lora_down", "lora_up"))
        return weight if down is None or up is None else weight.add_(self._scale * (up.double() @ down.double()))

    def _bias(self, weight: StoredTensor, base: StoredTensor | None) -> Tensor:
        added = self._tensors.get(f"llama.{_bias_name(weight.name)}")
        bias = torch.zeros(weight.shape[0], dtype=torch.float64)
        for part in (None if base is None else base.read(), added):
            bias = bias if part is None else bias + part.double()
        return bias


def _is_linear(name: str) -> bool:
    return name.endswith(".weight") and name.split(".")[-2] in LINEARS


def _is_bias_of_linear(name: str) -> bool:
    return name.endswith(".bias") and name.split(".")[-2] in LINEARS


def _bias_name(weight_name: str) -> str:
    return weight_name.removesuffix(".weight") + ".bias"
