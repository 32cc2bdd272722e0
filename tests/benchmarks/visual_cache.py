"""Exact search of the visual cache against faiss: ``python -m tests.benchmarks.visual_cache --vectors 100000``.

Prints a Markdown table. Each method has a process of its own; memory is what it holds itself (RssAnon), since pages
of a mapped file belong to the kernel. Vectors lie around centres in a random subspace of 64 dimensions, with noise
outside of it: ``clustered`` 200 to a centre at 0.7 of the distance between centres, ``overlapping`` 50 at the same
distance. Near queries lie beside one of the vectors. Far ones have a cosine of about 0.35 to one, as another
modality's would, and half of what moved them away lies in the subspace. IVF stands there twice: with the fewest
probes that reach the wanted recall on near queries, and on far ones. faiss is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ibllm_core.model.visual_cache.build import build
from ibllm_core.model.visual_cache.cache import VisualCache
from ibllm_core.model.visual_cache.manifest import CacheEncoder

K = 10
BATCH = 10_000
LATENT_DIM = 64
NUM_QUERIES = 64
SHAPES = {"clustered": (200, 0.7), "overlapping": (50, 1.0)}  # vectors of a centre, spread
WANTED_RECALL = 0.95


Search = Callable[[Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--data", choices=[*SHAPES, "random"], default="clustered")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.perf_counter()
        batches = draw(options.data, options.vectors, options.dim, seed=0)
        build(folder, batches, encoder=CacheEncoder(name="drawn", sha256="0" * 64))
        gigabytes = options.vectors * options.dim * 2 / 1e9
        print(f"{options.vectors:,} {options.data} vectors of {options.dim}, {gigabytes:.2f} GB, drawn and ", end="")
        print(f"written in {time.perf_counter() - started:.0f} s; {torch.get_num_threads()} threads\n")
        print("| method | build s | memory MB | Q=1 ms | Q=64 ms | recall@10 near | recall@10 far |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        queries = query_kinds(VisualCache.open(folder), options.data)
        truth = {kind: VisualCache.open(folder).search(drawn, K)[1] for kind, drawn in queries.items()}
        for method in options.methods:
            if method == "exact" or importlib.util.find_spec("faiss"):
                report(method, folder, queries, truth)


def report(method: str, folder: Path, queries: dict[str, Tensor], truth: dict[str, Tensor]) -> None:
    """One line of the table, measured in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for line in pool.apply(measure, (method, folder, queries, truth)):
            print(f"| {' | '.join(line)} |", flush=True)


def measure(method: str, folder: Path, queries: dict[str, Tensor], truth: dict[str, Tensor]) -> list[list[str]]:
    cache = VisualCache.open(folder)
    before = anonymous_megabytes()
    started = time.perf_counter()
    name, search = METHODS[method](cache)
    seconds = time.perf_counter() - started
    if method != "ivf":
        return [timed(name, search, seconds, before, queries, truth)]
    lines = []
    for kind in ("near", "far"):
        probes, tuned = fewest_probes(search, queries[kind], truth[kind])
        lines.append(timed(f"{name}, {probes} probes", tuned, seconds, before, queries, truth))
    return lines


def timed(
    name: str, search: Search, seconds: float, before: float, queries: dict[str, Tensor], truth: dict[str, Tensor]
) -> list[str]:
    near = queries["near"]
    one, many = milliseconds(lambda: search(near[:1])), milliseconds(lambda: search(near))
    recalls = [f"{recall(search(queries[kind]), truth[kind]):.3f}" for kind in ("near", "far")]
    return [name, f"{seconds:.1f}", f"{anonymous_megabytes() - before:.0f}", f"{one:.1f}", f"{many:.1f}", *recalls]


def fewest_probes(search: Any, queries: Tensor, truth: Tensor) -> tuple[int, Search]:
    """The fewest probes, by doubling, that reach the wanted recall."""
    probes = 1
    while recall(search(queries, probes), truth) < WANTED_RECALL:
        probes *= 2
    return probes, lambda queries: search(queries, probes)


def draw(data: str, count: int, dim: int, *, seed: int) -> Iterator[np.ndarray]:
    generator = torch.Generator().manual_seed(seed)
    basis = subspace(dim)
    per_centre, spread = SHAPES.get(data, (1, 0.0))
    centres = torch.randn(max(1, count // per_centre), LATENT_DIM, generator=generator)
    for start in range(0, count, BATCH):
        rows = min(BATCH, count - start)
        batch = torch.randn(rows, dim, generator=generator)
        if data in SHAPES:
            chosen = torch.randint(len(centres), (rows,), generator=generator)
            latent = centres[chosen] + spread * torch.randn(rows, LATENT_DIM, generator=generator)
            batch = latent @ basis + 0.3 * batch
        yield batch.numpy()


def query_kinds(cache: VisualCache, data: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    count, dim = cache.vectors.shape
    chosen = torch.randint(count, (NUM_QUERIES,), generator=generator)
    origins = cache.vectors[chosen].float()
    noise = normalize(torch.randn(NUM_QUERIES, dim, generator=generator))
    within = normalize(torch.randn(NUM_QUERIES, LATENT_DIM, generator=generator) @ subspace(dim))
    near = origins + (0.3 if data in SHAPES else 1.0) * noise
    far = 0.35 * origins + (1 - 0.35**2) ** 0.5 * normalize(noise + within)
    return {"near": normalize(near), "far": normalize(far)}


def subspace(dim: int) -> Tensor:
    return torch.randn(LATENT_DIM, dim, generator=torch.Generator().manual_seed(3)) / LATENT_DIM**0.5


def exact(cache: VisualCache) -> tuple[str, Search]:
    return "exact, fp16 memory map", lambda queries: cache.search(queries, K)[1]


def faiss_flat(cache: VisualCache) -> tuple[str, Search]:
    import faiss

    return "faiss IndexFlatIP (fp32)", filled(faiss.IndexFlatIP(cache.manifest.dim), cache)


def faiss_half(cache: VisualCache) -> tuple[str, Search]:
    import faiss

    half = faiss.ScalarQuantizer.QT_fp16
    index = faiss.IndexScalarQuantizer(cache.manifest.dim, half, faiss.METRIC_INNER_PRODUCT)
    return "faiss IndexScalarQuantizer (fp16)", filled(index, cache)


def faiss_ivf(cache: VisualCache) -> tuple[str, Any]:
    import faiss

    count, dim = cache.vectors.shape
    num_lists = 2 ** round(np.log2(2 * count**0.5))
    half = faiss.ScalarQuantizer.QT_fp16
    quantizer = faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFScalarQuantizer(quantizer, dim, num_lists, half, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = 6
    index.cp.spherical = True
    sample = torch.randperm(count, generator=torch.Generator().manual_seed(2))[: 40 * num_lists].sort().values
    index.train(cache.vectors[sample].float().numpy())
    filled(index, cache)

    def search(queries: Tensor, probes: int) -> Tensor:
        index.nprobe = probes
        return torch.from_numpy(index.search(queries.numpy(), K)[1])

    return f"faiss IVF {num_lists}, fp16", search


def filled(index: Any, cache: VisualCache) -> Search:
    for part in cache.vectors.split(BATCH):
        index.add(part.float().numpy())
    return lambda queries: torch.from_numpy(index.search(queries.numpy(), K)[1])


def recall(found: Tensor, truth: Tensor) -> float:
    return (found[:, :, None] == truth[:, None]).any(dim=1).float().mean().item()


def milliseconds(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(5):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times))


def anonymous_megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


METHODS = {"exact": exact, "flat": faiss_flat, "half": faiss_half, "ivf": faiss_ivf}

if __name__ == "__main__":
    main()
