"""What lies in a cache's folder: ``vectors.f16``, raw little-endian fp16 row by row, and ``cache.json`` about it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from ibllm_core.contract.base import Contract
from ibllm_core.errors import InvalidDataError

VECTORS = "vectors.f16"
MANIFEST = "cache.json"
BYTES_PER_ELEMENT = 2
SHA256 = r"^[0-9a-f]{64}$"


class CacheEncoder(Contract):
    """Whose features the vectors are: queries of another encoder find nothing that means anything."""

    name: str = Field(min_length=1)
    sha256: str = Field(pattern=SHA256, description="of the encoder's weights")


class CacheManifest(Contract):
    """``cache.json``: written last, and a folder without it is no cache."""

    format: Literal[1] = 1
    count: int = Field(ge=1, description="vectors")
    dim: int = Field(ge=1, description="elements of a vector")
    encoder: CacheEncoder
    datasets: tuple[str, ...] = Field((), description="compiled datasets that the vectors come from")
    sha256: str = Field(pattern=SHA256, description="of vectors.f16")

    @property
    def num_bytes(self) -> int:
        """Size that ``vectors.f16`` must have."""
        return self.count * self.dim * BYTES_PER_ELEMENT


def read_manifest(folder: Path) -> CacheManifest:
    """Read ``cache.json`` and hold the size of ``vectors.f16`` against it; ``InvalidDataError`` for anything amiss."""
    path = folder / MANIFEST
    if not path.is_file():
        raise InvalidDataError(
            f"{folder} is no visual cache: it has no {MANIFEST}. Either the path is wrong or building it was cut "
            "off: build the cache again",
            file=str(path),
        )
    try:
        manifest = CacheManifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise InvalidDataError(
            f"{path} is not understood by this version ({problems}): build the cache again", file=str(path)
        ) from error
    vectors = folder / VECTORS
    size = vectors.stat().st_size if vectors.is_file() else None
    if size != manifest.num_bytes:
        found = "is missing" if size is None else f"has {size} bytes"
        raise InvalidDataError(
            f"{vectors} {found}, but {MANIFEST} states {manifest.count} vectors of {manifest.dim} elements, which are "
            f"{manifest.num_bytes} bytes: copy the folder again or build the cache again",
            file=str(vectors),
        )
    return manifest


def check_hash(folder: Path, manifest: CacheManifest) -> None:
    """Read all of ``vectors.f16`` and compare its hash, seconds a GB; ``InvalidDataError`` where it differs."""
    with (folder / VECTORS).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != manifest.sha256:
        raise InvalidDataError(
            f"{folder / VECTORS} has sha256 {found}, but {MANIFEST} states {manifest.sha256}: copy the folder again",
            file=str(folder / VECTORS),
        )
