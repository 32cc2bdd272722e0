"""Point clouds: 8,192 points in the unit sphere, the same ones each time."""

from __future__ import annotations

import io
import pickle
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from ibllm_core.encoders.preprocess import points
from tests.ibllm_core.encoders.preprocess.media import npy, npy_declaring, npz, refusal

RANDOM = np.random.default_rng(5)
FEW = RANDOM.standard_normal((500, 3)).astype(np.float32)
MANY = RANDOM.standard_normal((20_000, 3)) * [1, 2, 3] + 10


def rows(array: np.ndarray, separator: str = " ", first: str = "") -> bytes:
    return (first + "\n".join(separator.join(map(repr, row)) for row in array.tolist())).encode()


def mesh(shape: trimesh.Trimesh | trimesh.PointCloud, kind: str, **options: object) -> bytes:
    exported = shape.export(file_type=kind, **options)
    return exported.encode() if isinstance(exported, str) else exported


def assert_in_unit_sphere(cloud: Tensor) -> None:
    assert cloud.shape == (8192, 3)
    assert cloud.dtype == torch.float32
    assert cloud.norm(dim=1).max().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    "content",
    [
        npy(FEW),
        npy(np.asfortranarray(FEW)),
        npz(points=FEW, normals=FEW),
        npz(anything=FEW),
        rows(FEW),
        rows(FEW, ","),
        rows(FEW, ";"),
        rows(FEW, first="500\n"),
        rows(FEW, first="# made by hand\nx y z\n"),
        rows(np.hstack([FEW, FEW])),
        mesh(trimesh.PointCloud(FEW), "ply"),
    ],
)
def test_the_same_points_are_read_from_every_format(content: bytes) -> None:
    assert (points.load(content) - points.load(npy(FEW))).abs().max() < 1e-5


def test_few_points_are_centred_scaled_and_repeated_in_order() -> None:
    cloud = points.load(npy(FEW))
    assert_in_unit_sphere(cloud)
    centred = FEW - FEW.mean(axis=0)
    assert (cloud[:500] - centred / np.linalg.norm(centred, axis=1).max()).abs().max() < 1e-6
    assert torch.equal(cloud[500:1000], cloud[:500])
    assert torch.equal(cloud[8000:], cloud[:192])


def test_many_points_are_thinned_to_those_farthest_from_each_other() -> None:
    cloud = points.load(npy(MANY))
    assert_in_unit_sphere(cloud)
    assert cloud.unique(dim=0).shape == (8192, 3)
    assert cloud.norm(dim=1).argmax() == 0  # it starts at the farthest from the centroid
    assert torch.equal(cloud, points.load(npy(MANY)))


def test_the_order_of_farthest_points_follows_the_definition() -> None:
    cloud = RANDOM.standard_normal((300, 3))
    chosen = [int(np.linalg.norm(cloud - cloud.mean(axis=0), axis=1).argmax())]
    while len(chosen) < 100:
        chosen.append(int(np.linalg.norm(cloud[:, None] - cloud[chosen], axis=2).min(axis=1).argmax()))
    assert points.farthest(cloud, 100).tolist() == chosen


def test_a_million_points_take_a_second() -> None:
    content = npy(RANDOM.standard_normal((1_000_000, 3)))
    begin = time.perf_counter()
    assert_in_unit_sphere(points.load(content))
    assert time.perf_counter() - begin < 5


@pytest.mark.parametrize("kind", ["ply", "off", "obj"])
def test_a_mesh_of_few_vertices_is_seen_by_its_surface(kind: str) -> None:
    content = mesh(trimesh.creation.box(), kind)
    cloud = points.load(content)
    assert_in_unit_sphere(cloud)
    assert torch.equal(cloud, points.load(content))
    scaled = cloud / cloud.abs().max()
    assert (scaled.abs().amax(dim=1) > 0.97).all()  # on one of six faces
    assert len(cloud.unique(dim=0)) == 8192


def test_a_mesh_of_many_vertices_is_seen_by_these() -> None:
    sphere = trimesh.creation.icosphere(subdivisions=5)
    assert len(sphere.vertices) > 8192
    cloud = points.load(mesh(sphere, "ply"))
    assert (cloud.norm(dim=1) - 1).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no rows"),
        (b"a text about points", "no rows"),
        (b"a text\nabout points", "decoded"),
        (npy(FEW[:0]), "shape"),
        (npy(FEW[:, :2]), "shape"),
        (npy(FEW[None]), "shape"),
        (npy(np.full((10, 3), np.nan)), "NaN"),
        (rows(np.full((10, 3), np.nan)), "NaN"),
        (rows(np.full((10, 3), np.inf)), "NaN"),
        (npy(np.ones((10, 3))), "one place"),
        (npy(FEW)[:-1], "declares"),
        (npz(first=FEW, second=FEW), "holds 2 arrays"),
        (npz(points=FEW)[:-40], "decoded"),
        (b"ply\nformat ascii 1.0\nelement vertex 999999999999\nproperty float x\nend_header\n0\n", "declares"),
        (b"OFF\n999999999 9 0\n0 0 0\n", "decoded"),
        (b"v 0 0\nf 1 2 3\n", "decoded"),
        (mesh(trimesh.creation.box(), "ply")[:300], "decoded"),
    ],
)
def test_what_is_no_point_cloud_is_refused(content: bytes, problem: str) -> None:
    assert problem in refusal(points.load, content)


@pytest.mark.parametrize(
    "shape", ["(1000000000, 3)", "(10**18, 3)", "(-1, -64)", "(4000000000000000000, 4000000000)", "(-1,)"]
)
def test_a_declared_giant_is_refused_before_it_is_allocated(shape: str) -> None:
    tracemalloc.start()
    refusal(points.load, npy_declaring(shape))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_compressed_giant_is_refused_before_it_is_inflated() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("points.npy", "w") as member:
        member.write(npy(np.zeros((1, 3)))[:128])
        for _ in range(200):
            member.write(bytes(1 << 20))
    assert len(file.getvalue()) < 1 << 20
    tracemalloc.start()
    assert "declares" in refusal(points.load, file.getvalue())
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


class Trap:
    def __reduce__(self) -> tuple:
        return exec, ("raise SystemExit('a pickle was run')",)


def test_pickles_are_never_run() -> None:
    refusal(points.load, pickle.dumps(Trap()))
    file = io.BytesIO()
    np.save(file, np.array([Trap()], dtype=object), allow_pickle=True)
    assert "not of numbers" in refusal(points.load, file.getvalue())
