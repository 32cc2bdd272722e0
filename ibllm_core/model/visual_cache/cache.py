"""Image features on disk that pull a query of another modality towards them.

Shape suffixes: S queries, K neighbours, F features.
"""

from __future__ import annotations

import mmap
import warnings
from pathlib import Path

import torch
from torch import Tensor

from ibllm_core.errors import InvalidPromptError, InvalidSpecError
from ibllm_core.model.mixing import unit
from ibllm_core.model.visual_cache.exact import nearest
from ibllm_core.model.visual_cache.formulas import pull
from ibllm_core.model.visual_cache.manifest import VECTORS, CacheManifest, check_hash, read_manifest
from ibllm_core.model.visual_cache.settings import CacheSettings


class VisualCache:
    """Unit vectors ``[count, dim]`` in fp16, mapped from disk: the kernel's page cache holds them, not the process.

    Searching changes nothing, so that threads may share a cache.
    """

    def __init__(self, folder: Path, manifest: CacheManifest, vectors: Tensor) -> None:
        self.folder = folder
        self.manifest = manifest
        self.vectors = vectors

    @staticmethod
    def open(folder: Path) -> VisualCache:
        """Map a cache that ``build`` wrote; ``InvalidDataError`` where files are missing, cut short or unknown.

        The vectors' hash is not compared, which would read them all: ``verify`` does.
        """
        manifest = read_manifest(folder)
        with (folder / VECTORS).open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given buffer is not writable")  # and nobody writes to it
            vectors = torch.frombuffer(mapped, dtype=torch.float16)
        return VisualCache(folder, manifest, vectors.view(manifest.count, manifest.dim))

    def verify(self) -> None:
        """Read all vectors and compare their hash; ``InvalidDataError`` where it differs."""
        check_hash(self.folder, self.manifest)

    @torch.no_grad()
    def search(self, queries_SF: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The ``k`` largest inner products of each query and the numbers of their vectors, both ``[S, K]``.

        Exact: see ``nearest``. Takes queries of any finite length as they are, and answers on their device.
        """
        if not 1 <= k <= self.manifest.count:
            raise InvalidSpecError(
                f"k is {k}, but must be from 1 to {self.manifest.count}, the number of vectors in {self.folder}"
            )
        if queries_SF.dim() != 2 or queries_SF.shape[1] != self.manifest.dim:
            raise InvalidPromptError(
                f"queries have shape {list(queries_SF.shape)}, but the cache in {self.folder} needs "
                f"[S, {self.manifest.dim}]: encode the media with {self.manifest.encoder.name}"
            )
        if not bool(queries_SF.isfinite().all()):
            raise InvalidPromptError("a query has NaN or infinite elements: encode the medium again")
        scores_SK, indices_SK = nearest(self.vectors, queries_SF.cpu().float(), k)
        return scores_SK.to(queries_SF.device), indices_SK.to(queries_SF.device)

    @torch.no_grad()
    def enhance(self, queries_SF: Tensor, settings: CacheSettings) -> Tensor:
        """Queries ``[S, F]``, pulled towards their nearest image features: fp32, on their device; see ``pull``.

        Queries are brought to length 1 first: another length would rescale the temperature without a word.
        """
        units_SF = unit(queries_SF.float(), "a query")
        scores_SK, indices_SK = self.search(units_SF, settings.k)
        keys_SKF = self.vectors[indices_SK.cpu()].to(queries_SF.device).float()
        return pull(units_SF, keys_SKF, scores_SK, settings)
