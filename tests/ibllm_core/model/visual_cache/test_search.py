from __future__ import annotations

import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ibllm_core.data.shards import write_features
from ibllm_core.model.visual_cache import exact
from tests.ibllm_core.model.visual_cache.caches import drawn, made, stored


def by_brute_force(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[list[list[float]], list[list[int]]]:
    """Every product added up exactly, rounded to fp32; of equal ones the lower number first."""
    scores, numbers = [], []
    for query in queries:
        products = [
            (-float(np.float32(math.fsum(float(q) * float(v) for q, v in zip(query, vector, strict=True)))), number)
            for number, vector in enumerate(vectors)
        ]
        best = sorted(products)[:k]
        scores.append([-score for score, _ in best])
        numbers.append([number for _, number in best])
    return scores, numbers


# --- search ---


@st.composite
def searches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Few distinct values, so that equal scores and equal vectors abound."""
    count, dim, num_queries = draw(st.integers(1, 30)), draw(st.integers(1, 4)), draw(st.integers(0, 5))
    element = st.sampled_from([-1.0, -0.25, 0.0, 0.25, 1.0])
    values = draw(st.lists(element, min_size=(count + num_queries) * dim, max_size=(count + num_queries) * dim))
    rows = np.array(values, dtype=np.float32).reshape(-1, dim)
    return rows[:count], rows[count:], draw(st.integers(1, count))


@settings(max_examples=150, deadline=None)
@given(searches(), st.integers(1, 8), st.integers(1, 5), st.integers(1, 4), st.integers(1, 9))
def test_search_finds_what_brute_force_finds(
    case: tuple[np.ndarray, np.ndarray, int], slab_rows: int, piece_rows: int, queries_at_once: int, pairs: int
) -> None:
    vectors, queries, k = case
    dim = vectors.shape[1]
    sizes = {
        "SLAB_ROWS": slab_rows,
        "PIECE_BYTES": piece_rows * 4 * dim,
        "QUERIES_AT_ONCE": queries_at_once,
        "RESCORED_BYTES": pairs * 8 * dim,
    }
    with mock.patch.multiple(exact, **sizes):
        scores, numbers = exact.nearest(torch.from_numpy(vectors).half(), torch.from_numpy(queries), k)
    assert scores.shape == numbers.shape == (len(queries), k)
    assert (scores.tolist(), numbers.tolist()) == by_brute_force(vectors, queries, k)


def test_search_crosses_real_slabs_and_pieces(tmp_path: Path) -> None:
    vectors = drawn(exact.SLAB_ROWS + 700, 160)
    queries = drawn(exact.QUERIES_AT_ONCE + 3, 160, seed=1)
    assert exact.PIECE_BYTES // (4 * 160) < exact.SLAB_ROWS
    cache = made(tmp_path, vectors)
    scores, numbers = cache.search(torch.from_numpy(queries), 10)
    products = queries.astype(np.float64) @ cache.vectors.double().numpy().T
    order = np.argsort(-products, axis=1)[:, :10]
    assert numbers.tolist() == order.tolist()
    assert numbers.max() >= exact.SLAB_ROWS
    expected = torch.from_numpy(np.take_along_axis(products, order, axis=1)).float()
    torch.testing.assert_close(scores, expected, atol=0, rtol=1e-7)


def test_search_tells_apart_what_fp32_products_confuse() -> None:
    """Vectors that differ in a last bit: the order of fp32 sums is the order of their rounding."""
    base = stored(drawn(1, 512))[0].astype(np.float16)
    vectors = np.tile(base, (3000, 1))
    chooser = np.random.default_rng(1)
    for vector in vectors[1:]:
        places = chooser.integers(0, 512, 2)
        vector[places] = np.nextafter(vector[places], np.float16(chooser.choice([-1, 1])))
    queries = drawn(2, 512, seed=2) / np.float32(512**0.5)
    # One large element, so that the differences lie below the rounding of the sum in fp32.
    queries *= np.float32(1e-3)
    queries[:, 0] += 1
    _, numbers = exact.nearest(torch.from_numpy(vectors), torch.from_numpy(queries), 20)
    assert numbers.tolist() == by_brute_force(vectors, queries, 20)[1]
    in_fp32 = (torch.from_numpy(queries) @ torch.from_numpy(vectors).float().T).sort(
        dim=1, descending=True, stable=True
    )
    assert in_fp32.indices[:, :20].tolist() != numbers.tolist()


def test_equal_vectors_score_equally_wherever_they_lie() -> None:
    vectors = drawn(exact.SLAB_ROWS + 40, 48)
    places = [0, 5, 1023, 1024, exact.SLAB_ROWS - 1, exact.SLAB_ROWS, exact.SLAB_ROWS + 39]
    vectors[places] = vectors[0]
    kept = torch.from_numpy(stored(vectors)).half()
    scores, numbers = exact.nearest(kept, kept[:1].float(), len(places) + 1)
    assert numbers[0, :-1].tolist() == places
    assert len(set(scores[0, :-1].tolist())) == 1
    assert scores[0, -1] < scores[0, 0]


def test_search_takes_queries_of_any_length_and_kind(tmp_path: Path) -> None:
    cache = made(tmp_path, drawn(50, 8))
    queries = torch.from_numpy(drawn(3, 8, seed=1)).half()
    scores, numbers = cache.search(queries.float(), 50)
    long_scores, long_numbers = cache.search(queries.float() * 1024, 50)
    assert torch.equal(numbers, long_numbers)
    assert torch.equal(scores * 1024, long_scores)
    assert torch.equal(cache.search(queries, 50)[0], scores)
    assert sorted(numbers[0].tolist()) == list(range(50))
    assert cache.search(queries[:0], 2)[0].shape == (0, 2)


def test_search_leaves_torchs_threads_as_they_were() -> None:
    vectors = torch.from_numpy(drawn(50, 8)).half()

    def in_new_thread() -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(torch.get_num_threads).result()

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        exact.nearest(vectors, vectors[:2].float(), 3)
        assert (torch.get_num_threads(), in_new_thread()) == (3, 3)
    finally:
        torch.set_num_threads(before)


MEMORY_SCRIPT = """
import sys, threading, time
from pathlib import Path
import numpy as np, torch
from ibllm_core.model.visual_cache.build import build, build_from_datasets
from ibllm_core.model.visual_cache.cache import VisualCache
from ibllm_core.model.visual_cache.manifest import CacheEncoder

folder = Path(sys.argv[1])
encoder = CacheEncoder(name="e", sha256="0" * 64)

def anonymous():
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1024

def batches():
    for seed in range(100):
        yield np.random.default_rng(seed).standard_normal((2000, 256), dtype=np.float32)

def search():
    cache = VisualCache.open(folder / "cache")
    queries = torch.nn.functional.normalize(torch.randn(64, 256))
    cache.search(queries, 100)
    assert cache.vectors.shape == (200_000, 256)

torch.randn(512, 512) @ torch.randn(512, 512)
steps = [
    lambda: build(folder / "cache", batches(), encoder=encoder),
    search,
    lambda: build_from_datasets(folder / "other", {"ds": folder / "ds"}, encoder=encoder),
]
for step in steps:
    samples, running = [], True
    def sample():
        while running:
            samples.append(anonymous())
            time.sleep(0.001)
    before = anonymous()
    thread = threading.Thread(target=sample)
    thread.start()
    step()
    running = False
    thread.join()
    print(len(samples), max(samples) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's account of memory")
def test_building_and_searching_hold_little_memory(tmp_path: Path) -> None:
    """In MB: the vectors are 205 in fp32 and 102 in fp16, those of the dataset lie in one row group."""
    vectors = drawn(200_000, 256)
    keys = [f"image/{number:064x}" for number in range(len(vectors))]
    (tmp_path / "ds").mkdir()
    write_features(tmp_path / "ds" / "features-00000.parquet", keys, vectors[:, None])
    assert pq.ParquetFile(tmp_path / "ds" / "features-00000.parquet").num_row_groups == 1
    run = subprocess.run(
        [sys.executable, "-c", MEMORY_SCRIPT, str(tmp_path)], check=True, capture_output=True, text=True, timeout=120
    )
    lines = [line.split() for line in run.stdout.splitlines()]
    assert len(lines) == 3
    assert all(int(samples) > 5 for samples, _ in lines)
    growths = dict(zip(("build", "search", "datasets"), (float(growth) for _, growth in lines), strict=True))
    assert growths["build"] < 64, growths
    assert growths["search"] < 64, growths
    # Arrow's readers and their threads take about 60 whatever the file's size, and the hashes 26.
    assert growths["datasets"] < 150, growths


# --- the folder ---
