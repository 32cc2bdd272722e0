"""Files of points and meshes to coordinates."""

from __future__ import annotations

import re
from io import BytesIO

import numpy as np
import numpy.typing as npt
import trimesh

from ibllm_core.encoders.preprocess.arrays import MAGIC, ZIP_MAGIC, read_npy, read_npz, read_rows
from ibllm_core.encoders.preprocess.refusal import refusing, unusable

MEDIUM = "a point cloud"
MAX_MESH_BYTES = 1 << 25  # trimesh takes some thirty times as much for a text
SURFACE_SEED = 0

Points = npt.NDArray[np.float64]


def read_points(content: bytes, *, wanted: int) -> Points:
    """Coordinates ``[N, 3]``, at least one and all finite.

    The first three columns of an ``.npy``, of an ``.npz`` (its only array, or "points"), or of rows of text; or the
    vertices of a PLY, OFF or OBJ file. A mesh of fewer than ``wanted`` vertices gives as many points of its surface
    instead, the same ones each time. Raises ``InvalidDataError`` for anything else.
    """
    points = _read(content, wanted)
    if points.ndim != 2 or points.shape[1] < 3 or not len(points):
        raise unusable(MEDIUM, f"has shape {points.shape}, not rows of x, y, z")
    points = points[:, :3]
    if not np.isfinite(points).all():
        raise unusable(MEDIUM, "holds coordinates that are NaN or infinite")
    return points


def _read(content: bytes, wanted: int) -> Points:
    if content.startswith(MAGIC):
        return read_npy(content, MEDIUM)
    if content.startswith(ZIP_MAGIC):
        return read_npz(content, MEDIUM, name="points")
    kind = _mesh_kind(content)
    return _from_mesh(content, kind, wanted) if kind else read_rows(content, MEDIUM, num_columns=3)


def _mesh_kind(content: bytes) -> str | None:
    if content.startswith(b"ply"):
        return "ply"
    if re.match(rb"\s*C?OFF", content):
        return "off"
    return "obj" if re.search(rb"^v[ \t]", content, re.MULTILINE) else None


def _from_mesh(content: bytes, kind: str, wanted: int) -> Points:
    if len(content) > MAX_MESH_BYTES:
        raise unusable(MEDIUM, f"is a mesh of {len(content):,} bytes, more than the {MAX_MESH_BYTES:,} allowed")
    if kind == "ply":
        _check_ply_header(content)
    with refusing(MEDIUM):
        scene = trimesh.load_scene(BytesIO(content), file_type=kind, process=False, skip_materials=True)
        parts = list(scene.geometry.values())
        vertices = np.concatenate([np.asarray(part.vertices, dtype=np.float64) for part in parts])
        meshes = [part for part in parts if isinstance(part, trimesh.Trimesh) and len(part.faces)]
        if len(vertices) >= wanted or not meshes:
            return vertices
        surface, _ = trimesh.sample.sample_surface(trimesh.util.concatenate(meshes), wanted, seed=SURFACE_SEED)
        return np.asarray(surface, dtype=np.float64)


def _check_ply_header(content: bytes) -> None:
    header = content[: content.find(b"end_header")]
    for name, count in re.findall(rb"^element +(\w+) +(\d+)", header, re.MULTILINE):
        if int(count) > len(content):
            raise unusable(MEDIUM, f"declares {int(count):,} elements {name.decode()} in {len(content):,} bytes")
