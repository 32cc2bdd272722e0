"""Bases and adapters from the object store through the node-local cache, as a model on this process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from ibllm_core.adapter import files
from ibllm_core.bases.load import load_llama
from ibllm_core.bases.safetensors_folder import read_config, read_tokenizer
from ibllm_core.contract import layout
from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.contract.job_spec import Precision, TrainingStage
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.storage import Store
from workers.base_manifest import small_files, tokenizer_hash, weights_hash


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base model's folder on this node, the hash of its weights, and that of the other files beside them."""

    name: str
    folder: Path
    sha256: str
    tokenizer_sha256: str

    @property
    def context(self) -> int:
        """Positions that the base was trained for."""
        return int(read_config(self.folder / "config.json").max_position_embeddings)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that lies beside the weights."""
        return read_tokenizer(self.folder)


def fetch_base(store: Store, name: str, cache: Path, *, with_weights: bool = True) -> Base:
    """Bring a base to this node; ``ObjectMissingError`` where the store has none of that name."""
    prefix = layout.base(name)
    manifest = store.manifest(prefix)
    sha256 = weights_hash(name, manifest)
    small = small_files(manifest)
    return Base(
        name=name,
        folder=store.download_folder(prefix, cache, wanted=lambda file: with_weights or file in small),
        sha256=sha256,
        tokenizer_sha256=tokenizer_hash(manifest),
    )


def load_model(
    base: Base,
    *,
    feature_dim: int,
    config: AdapterConfig,
    stage: TrainingStage,
    dtype: torch.dtype,
    parent: Path | None = None,
) -> ImageBindLLM:
    """Build the model of a stage around a base, with the weights of an earlier adapter where there is one."""
    model = ImageBindLLM(load_llama(base.folder, dtype), feature_dim, config, stage)
    if parent:
        files.install(model, files.read(parent), base_sha256=base.sha256, source=str(parent / files.FILENAME))
    return model


def load_adapted(base: Base, folder: Path, dtype: torch.dtype) -> ImageBindLLM:
    """The model that an adapter's header describes, with the adapter in it."""
    llama, source = load_llama(base.folder, dtype), str(folder / files.FILENAME)
    return files.build_model(llama, files.read(folder), base_sha256=base.sha256, source=source)


def choose_dtype(precision: Precision) -> torch.dtype:
    """bf16 where asked for or, with ``auto``, where the device multiplies matrices in it; else fp32."""
    if precision != "auto":
        return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
