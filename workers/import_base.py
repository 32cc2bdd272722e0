"""Bring a base model into the object store: ``python -m workers.import_base NAME SOURCE``.

``SOURCE`` is a folder with safetensors and a tokenizer, which is uploaded as it is; a GGUF file, which is unpacked to
bf16; or Meta's folder (``consolidated.NN.pth``, ``params.json``, ``tokenizer.model``), which keeps its dtype.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from ibllm_core.bases.formats import open_source
from ibllm_core.bases.gguf_file import GGUFFile
from ibllm_core.bases.load import load_tokenizer, weights_sha256
from ibllm_core.bases.safetensors_folder import SafetensorsFolder
from ibllm_core.bases.source import WeightSource
from ibllm_core.bases.write import write_folder
from ibllm_core.contract import layout
from ibllm_core.errors import CoreError
from ibllm_core.settings import StorageSettings
from ibllm_core.storage import ObjectStore, Store
from workers.base_manifest import WEIGHTS_HASH, weights_hash


def main(name: str, source: Path) -> int:
    """Upload a base under a name, unless it is there already; says what it did."""
    try:
        store = ObjectStore(StorageSettings())
        if store.exists(layout.manifest(layout.base(name))):
            weights_hash(name, store.manifest(layout.base(name)))
            sys.stdout.write(f"base {name} is in the object store already\n")
            return 0
        manifest = upload(store, name, open_source(source))
    except CoreError as error:
        sys.stderr.write(error.message + "\n")
        return 1
    size = sum(entry["bytes"] for entry in manifest["files"].values())
    sys.stdout.write(f"base {name}: {len(manifest['files'])} files, {size / 1e6:.0f} MB\n")
    return 0


def upload(store: Store, name: str, source: WeightSource) -> dict[str, Any]:
    """Check a base, turn it into a safetensors folder where it is none, upload it; returns the manifest.

    The manifest's ``weights_sha256`` is that of the weights that are uploaded, whatever files they lie in.
    """
    prefix = layout.base(name)
    if isinstance(source, SafetensorsFolder):
        load_tokenizer(source)
        return store.upload_folder(prefix, source.path, {"name": name, WEIGHTS_HASH: weights_sha256(source)})
    with tempfile.TemporaryDirectory() as temporary:
        # Dequantised weights are float32, twice of what their precision is worth.
        dtype = torch.bfloat16 if isinstance(source, GGUFFile) else None
        sha256 = write_folder(source, Path(temporary), dtype)
        return store.upload_folder(prefix, Path(temporary), {"name": name, WEIGHTS_HASH: sha256})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
