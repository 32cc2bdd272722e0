"""An adapter on this node from what a run left in the store: a finished one, or one that is made from a checkpoint.

A checkpoint holds what its run trains. What the stage keeps frozen comes from the adapter that the run began from,
which may be made from a checkpoint itself.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor

from ibllm_core.adapter.header import Adapter, AdapterHeader, parse_header
from ibllm_core.errors import InvalidWeightsError, ObjectMissingError
from ibllm_core.model.stages import ADAPTED_GROUPS, TRAINED_GROUPS, Group, group_of
from ibllm_core.storage import Store, manifest_sha256
from workers.train.checkpoint.state import STATE_FILE, WEIGHTS, CheckpointState

Found = TypeVar("Found")
Chain = tuple[str, ...]
"""Prefixes of checkpoints, each of which was trained from the next one."""


def fetch_adapter(store: Store, prefix: str, cache: Path) -> Path:
    """The folder of the adapter at ``prefix``, that of a finished adapter or of a checkpoint; made once a node.

    From the checkpoint of a run's last step comes the run's own adapter, bit by bit. Raises ``ObjectMissingError``
    where there is nothing, ``IntegrityError`` where bytes are wrong, and ``InvalidWeightsError`` for a checkpoint that
    does not say what it is, or whose parent is gone.
    """
    return _fetched(store, prefix, cache, ())


def read_header(store: Store, prefix: str) -> AdapterHeader:
    """The header of what ``fetch_adapter`` would fetch, and raises as it does; reads no weights."""
    return _header(store, prefix, ())


def _fetched(store: Store, prefix: str, cache: Path, children: Chain) -> Path:
    manifest = store.manifest(prefix)
    with _locked(cache / prefix):
        if not _is_checkpoint(manifest):
            return store.download_folder(prefix, cache)
        # A damaged checkpoint is removed, and its step saved again: on GPUs with other bits.
        folder = cache / prefix / f"adapter-{manifest_sha256(manifest)[:16]}"
        if not folder.exists():
            partial = folder.with_suffix(".part")
            _make(store, prefix, cache, partial, children)
            partial.replace(folder)
        return folder


def _header(store: Store, prefix: str, children: Chain) -> AdapterHeader:
    manifest = store.manifest(prefix)
    if not _is_checkpoint(manifest):
        return parse_header(json.dumps(manifest.get("header")), prefix)
    header, _ = _described(store.get(f"{prefix}/{STATE_FILE}"), prefix)
    if _frozen_groups(header):
        _of_parent(header, (*children, prefix), lambda parent, chain: _header(store, parent, chain))
    return header


def _is_checkpoint(manifest: dict[str, Any]) -> bool:
    return STATE_FILE in manifest.get("files", {})


def _make(store: Store, prefix: str, cache: Path, folder: Path, children: Chain) -> None:
    """Write the adapter of a checkpoint into a folder; a download that was cut short goes on."""
    from safetensors.torch import load_file

    from ibllm_core.adapter import files  # imported here: who only reads headers needs no transformers

    downloads = folder / "checkpoint"
    source = store.download_folder(prefix, downloads, wanted=lambda name: name.startswith((STATE_FILE, WEIGHTS)))
    header, dtype = _described((source / STATE_FILE).read_bytes(), prefix)
    tensors: dict[str, Tensor] = {}
    if groups := _frozen_groups(header):
        parent = _of_parent(header, (*children, prefix), lambda key, chain: _fetched(store, key, cache, chain))
        # The run had them in its model's dtype, and its adapter has them as the run did.
        kept = ((name, tensor) for name, tensor in files.read(parent).tensors.items() if group_of(name) in groups)
        tensors |= {name: tensor.to(dtype).float() for name, tensor in kept}
    for path in sorted(source.glob(f"{WEIGHTS}*.safetensors")):
        tensors |= load_file(path)
    files.write(folder, Adapter(header=header, tensors=tensors))
    shutil.rmtree(downloads)


def _described(state: bytes, prefix: str) -> tuple[AdapterHeader, torch.dtype]:
    """What a checkpoint says of the adapter in it: the header, and the dtype of the model that was trained."""
    try:
        read = CheckpointState.model_validate_json(state)
    except ValidationError as error:
        raise InvalidWeightsError(
            f"{prefix}/{STATE_FILE} cannot be read ({error}): take another checkpoint", file=f"{prefix}/{STATE_FILE}"
        ) from error
    if read.header is None or read.dtype is None:
        raise InvalidWeightsError(
            f"{prefix} is a checkpoint of an older version, which does not say what adapter it makes: take the run's "
            "finished adapter, or a checkpoint that this version wrote",
            file=prefix,
        )
    return read.header, getattr(torch, read.dtype)


def _frozen_groups(header: AdapterHeader) -> frozenset[Group]:
    """What an adapter holds that its stage did not train."""
    return ADAPTED_GROUPS[header.stage] - TRAINED_GROUPS[header.config.preset][header.stage]


def _of_parent(header: AdapterHeader, chain: Chain, find: Callable[[str, Chain], Found]) -> Found:
    """What is found at the parent of the chain's last checkpoint."""
    parent, prefix = header.parent, chain[-1]
    if parent is not None and parent not in chain:  # without a service every run calls its parent by the same name
        try:
            return find(parent, chain)
        except ObjectMissingError:
            pass
    raise InvalidWeightsError(
        f"{prefix} has only what its run trained, and the adapter that this began from, {parent}, is not in the store: "
        "take the run's finished adapter",
        file=prefix,
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process or thread of the node at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
