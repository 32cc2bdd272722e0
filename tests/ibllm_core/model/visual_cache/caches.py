"""Caches made for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ibllm_core.model.visual_cache.build import build
from ibllm_core.model.visual_cache.cache import VisualCache
from ibllm_core.model.visual_cache.manifest import CacheEncoder

ENCODER = CacheEncoder(name="tiny", sha256="ab" * 32)


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def stored(vectors: np.ndarray) -> np.ndarray:
    """What a cache keeps of vectors, in fp64."""
    lengths = np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
    return (vectors / lengths).astype(np.float16).astype(np.float64)


def made(folder: Path, vectors: np.ndarray) -> VisualCache:
    build(folder, [vectors], encoder=ENCODER)
    return VisualCache.open(folder)
