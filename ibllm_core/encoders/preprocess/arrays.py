"""Arrays in NumPy's files and in text, without pickles and without memory for what a header merely declares."""

from __future__ import annotations

import math
import zipfile
from io import BytesIO, StringIO

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from ibllm_core.encoders.preprocess.refusal import refusing, unusable

MAGIC = npy.MAGIC_PREFIX
ZIP_MAGIC = b"PK\x03\x04"
MAX_VALUES = 1 << 24  # 128 MiB of float64
MAX_TEXT_BYTES = 1 << 25
MAX_NPZ_BYTES = 8 * MAX_VALUES + (1 << 16)


def read_npy(content: bytes, medium: str) -> npt.NDArray[np.float64]:
    """The numbers of an ``.npy`` file as float64, in its shape.

    Raises ``InvalidDataError`` for anything but whole numbers and floats, for a declared size other than the file's,
    and for NaN and infinity.
    """
    file = BytesIO(content)
    with refusing(medium):
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, is_fortran, dtype = read_header(file)
    if math.prod(shape) > MAX_VALUES:
        raise unusable(medium, f"declares an array of shape {shape}, more than the {MAX_VALUES:,} numbers allowed")
    if dtype.kind not in "iuf":
        raise unusable(medium, f"is an array of {dtype}, not of numbers")
    declared, held = math.prod(shape) * dtype.itemsize, len(content) - file.tell()
    if declared != held or min(shape, default=0) < 0:
        raise unusable(medium, f"declares an array of shape {shape} in {declared:,} bytes but holds {held:,}")
    with refusing(medium), np.errstate(over="ignore", invalid="ignore"):
        flat = np.frombuffer(content, dtype=dtype, offset=file.tell()).astype(np.float64)
        array = flat.reshape(shape, order="F" if is_fortran else "C")
    return _finite(array, medium)


def read_npz(content: bytes, medium: str, name: str) -> npt.NDArray[np.float64]:
    """The array called ``name``, or the only one, of an ``.npz`` file; refused as by ``read_npy``."""
    with refusing(medium), zipfile.ZipFile(BytesIO(content)) as archive:
        members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
        chosen = [member for member in members if member.filename == f"{name}.npy"] or members
        if len(chosen) != 1:
            raise unusable(medium, f"holds {len(members)} arrays, none of them called {name!r}")
        if chosen[0].file_size > MAX_NPZ_BYTES:  # a deflated array may grow a thousandfold
            raise unusable(medium, f"declares {chosen[0].file_size:,} bytes, more than the {MAX_NPZ_BYTES:,} allowed")
        inner = archive.read(chosen[0])
    return read_npy(inner, medium)


def read_rows(content: bytes, medium: str, *, num_columns: int | None = None) -> npt.NDArray[np.float64]:
    """Rows of numbers, separated by commas, semicolons or white space, ``[rows, columns]``; all or the first columns.

    Empty lines and those from ``#`` on are no rows, nor is a first line with other things than numbers or with a number
    alone: the names of the columns, or how many rows there are. Raises ``InvalidDataError`` for anything else.
    """
    if len(content) > MAX_TEXT_BYTES:
        raise unusable(medium, f"has {len(content):,} bytes of text, more than the {MAX_TEXT_BYTES:,} allowed")
    with refusing(medium):
        text = content.decode("utf-8").replace(",", " ").replace(";", " ")
        lines = [line for line in text.splitlines() if line.split("#")[0].strip()]
        if lines and not _is_row(lines[0]):
            del lines[0]
        if not lines:
            raise unusable(medium, "holds no rows of numbers")
        columns = None if num_columns is None else range(num_columns)
        rows = np.loadtxt(StringIO("\n".join(lines)), usecols=columns, ndmin=2)
    return _finite(rows, medium)


def _is_row(line: str) -> bool:
    words = line.split()
    try:
        return len([float(word) for word in words]) > 1
    except ValueError:
        return False


def _finite(array: npt.NDArray[np.float64], medium: str) -> npt.NDArray[np.float64]:
    if not np.isfinite(array).all():
        raise unusable(medium, "holds numbers that are NaN or infinite")
    return array
