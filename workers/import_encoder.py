"""Bring an encoder's weights into the object store: ``python -m workers.import_encoder NAME SOURCE``.

``SOURCE`` is the folder that the encoder reads, which is uploaded as it is; for ImageBind also a released ``.pth``,
which is split into such a folder first, so that a node fetches no more than the towers it runs.
"""

from __future__ import annotations

import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

from ibllm_core.contract import layout
from ibllm_core.contract.job_spec import IMAGEBIND
from ibllm_core.encoders.imagebind.weights import open_weights, split
from ibllm_core.encoders.registry import load_encoder
from ibllm_core.errors import CoreError, InvalidSpecError, InvalidWeightsError
from ibllm_core.settings import StorageSettings
from ibllm_core.storage import ObjectStore, Store


def main(name: str, source: Path) -> int:
    """Upload an encoder's weights under its name, unless they are there already; says what it did."""
    try:
        store = ObjectStore(StorageSettings())
        if store.exists(layout.manifest(layout.encoder(name))):
            sys.stdout.write(f"encoder {name} is in the object store already\n")
            return 0
        manifest = upload(store, name, source)
    except CoreError as error:
        sys.stderr.write(error.message + "\n")
        return 1
    size = sum(entry["bytes"] for entry in manifest["files"].values())
    sys.stdout.write(f"encoder {name}: {len(manifest['files'])} files, {size / 1e6:.0f} MB\n")
    return 0


def upload(store: Store, name: str, source: Path) -> dict[str, Any]:
    """Check an encoder's weights, split them where they are a released file, upload them; returns the manifest.

    Raises ``InvalidSpecError`` for a name that no package registers or whose encoder needs no weights, and
    ``InvalidWeightsError`` for weights that it cannot use.
    """
    if name != IMAGEBIND:
        return _upload_folder(store, name, source)
    if source.is_dir():
        _read_all_towers(source)
        return _upload_folder(store, name, source)
    with tempfile.TemporaryDirectory() as temporary:
        split(source, Path(temporary))
        return _upload_folder(store, name, Path(temporary))


def _upload_folder(store: Store, name: str, folder: Path) -> dict[str, Any]:
    # An encoder that needs no weights says so whatever the source is; one that needs some refuses to be made of None.
    encoder = load_encoder(name, weights=folder if folder.is_dir() else None)
    needed = {file for modality in encoder.modalities for file in encoder.weight_files(modality)}
    if not needed:
        raise InvalidSpecError(f"encoder {name} brings its weights along: jobs can name it as it is", encoder=name)
    missing = sorted(file for file in needed if not (folder / file).is_file())
    if missing:
        raise InvalidWeightsError(
            f"{folder} lacks {', '.join(missing)}, which encoder {name} reads: give the folder that has all of its "
            "files",
            file=str(folder / missing[0]),
            expected=", ".join(missing),
        )
    return store.upload_folder(layout.encoder(name), folder, {"name": name})


def _read_all_towers(folder: Path) -> None:
    """Hold every tower against the folder's header: what is in the store once can never be replaced."""
    weights = open_weights(folder)
    for tower in weights.config.towers:
        deque(weights.tensors(tower), maxlen=0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
