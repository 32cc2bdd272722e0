"""Bases and adapters from the object store through the node-local cache, as a model on this process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from ibllm_core import adapter
from ibllm_core.contract import layout
from ibllm_core.contract.job_spec import Precision
from ibllm_core.model import backbone
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.storage import ObjectStore, manifest_sha256


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base model's folder on this node, and the hash of its files."""

    name: str
    folder: Path
    sha256: str

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that lies beside the weights."""
        return backbone.load_tokenizer(self.folder)


def fetch_base(store: ObjectStore, name: str, cache: Path) -> Base:
    """Bring a base to this node; ``ObjectMissingError`` where the store has none of that name."""
    prefix = layout.base(name)
    sha256 = manifest_sha256(store.manifest(prefix))
    return Base(name=name, folder=store.download_folder(prefix, cache), sha256=sha256)


def load_model(
    base: Base,
    *,
    feature_dim: int,
    dtype: torch.dtype,
    lora_rank: int = 0,
    adapters: tuple[Path, ...] = (),
) -> ImageBindLLM:
    """Build a model around a base and put the adapters into it, one after the other."""
    model = ImageBindLLM(backbone.load_backbone(base.folder, dtype), feature_dim, lora_rank=lora_rank)
    for folder in adapters:
        adapter.load_into(model, folder, base_sha256=base.sha256)
    return model


def choose_dtype(precision: Precision) -> torch.dtype:
    """bf16 where asked for or, with ``auto``, where the device multiplies matrices in it; else fp32."""
    if precision != "auto":
        return {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
