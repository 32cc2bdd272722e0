"""Bring a base model into the object store: ``python -m workers.import_base NAME SOURCE``.

``SOURCE`` is a folder with safetensors and a tokenizer, or a GGUF file, which is unpacked to bf16.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from ibllm_core.contract import layout
from ibllm_core.errors import CoreError
from ibllm_core.settings import StorageSettings
from ibllm_core.storage import ObjectStore


def main(name: str, source: Path) -> int:
    """Upload a base under a name, unless it is there already; says what it did."""
    store = ObjectStore(StorageSettings())
    prefix = layout.base(name)
    try:
        if store.exists(layout.manifest(prefix)):
            sys.stdout.write(f"base {name} is in the object store already\n")
            return 0
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) if source.is_file() else source
            if source.is_file():
                unpack_gguf(source, folder)
            manifest = store.upload_folder(prefix, folder, {"name": name})
    except CoreError as error:
        sys.stderr.write(error.message + "\n")
        return 1
    size = sum(entry["bytes"] for entry in manifest["files"].values())
    sys.stdout.write(f"base {name}: {len(manifest['files'])} files, {size / 1e6:.0f} MB\n")
    return 0


def unpack_gguf(source: Path, folder: Path) -> None:
    """Write a GGUF file as a bf16 safetensors folder with its tokenizer."""
    where = {"pretrained_model_name_or_path": source.parent, "gguf_file": source.name}
    quantised = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    settings = quantised.config.to_dict()
    settings.pop("quantization_config", None)  # save_pretrained refuses a model that says it is quantised
    plain = LlamaForCausalLM(LlamaConfig(**settings)).to(torch.bfloat16)
    plain.load_state_dict(quantised.state_dict())  # copies into bf16
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
