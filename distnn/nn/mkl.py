"""MKL by its C interface, CBLAS."""

import ctypes
import re
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from distnn.errors import InputError
from distnn.nn.layout import Array

ROW_MAJOR, PLAIN, TRANSPOSED = 101, 111, 112  # CBLAS
AUTO_STRICT = 0x10002  # MKL_CBWR_AUTO | MKL_CBWR_STRICT: bits do not depend on alignment
SEQUENTIAL = 1  # MKL_THREADING_SEQUENTIAL


def find_library() -> Path | None:
    """The file of MKL's single dynamic library that ``pip install mkl`` brings, if it is there."""
    places = [Path(sys.prefix) / "lib", Path(sys.prefix) / "Library" / "bin"]
    spec = find_spec("mkl")
    if spec and spec.origin:
        places.append(Path(spec.origin).parents[3])
    found = [file for place in places for file in sorted(place.glob("libmkl_rt.so*"))]
    return found[-1] if found else None


class Mkl:
    """MKL's C interface: sequential, with conditional numerical reproducibility switched on.

    Strict reproducibility makes a product independent of where its matrices lie in memory; it has
    to be set before the first product. One thread: ranks are the parallelism.

    Attributes:
        version: as ``mkl 2026.2``.

    Raises:
        InputError: MKL is not installed.
    """

    def __init__(self) -> None:
        library = ctypes.CDLL(str(_library()))
        library.MKL_Set_Threading_Layer(SEQUENTIAL)
        library.MKL_CBWR_Set(AUTO_STRICT)
        self.version = _version(library)
        self._gemm = {
            np.dtype(np.float32): _gemm(library.cblas_sgemm, ctypes.c_float),
            np.dtype(np.float64): _gemm(library.cblas_dgemm, ctypes.c_double),
        }

    def product(self, X: Array, Y: Array, out: Array) -> None:
        """out = X @ Y by cblas_sgemm or cblas_dgemm."""
        (m, k), n = X.shape, Y.shape[1]
        x_layout, x_lead = _layout(X)
        y_layout, y_lead = _layout(Y)
        self._gemm[out.dtype](
            ROW_MAJOR, x_layout, y_layout, m, n, k,
            1.0, X.ctypes.data, x_lead, Y.ctypes.data, y_lead,
            0.0, out.ctypes.data, _layout(out)[1],
        )  # fmt: skip


@cache
def shared() -> Mkl:
    """The one of this process.

    Raises:
        InputError: MKL is not installed.
    """
    return Mkl()


def _version(library: Any) -> str:
    buffer = ctypes.create_string_buffer(200)
    library.MKL_Get_Version_String(buffer, len(buffer))
    found = re.search(rb"Version ([\d.]+)", buffer.value)
    return f"mkl {found[1].decode()}" if found else "mkl"


def _layout(X: Array) -> tuple[int, int]:
    """How a matrix lies in memory, as CBLAS calls it, and the step from row to row or column."""
    (rows, columns), (down, across) = X.shape, X.strides
    if across == X.itemsize or columns == 1:
        return PLAIN, max(columns, down // X.itemsize)
    return TRANSPOSED, max(rows, across // X.itemsize)


def _gemm(function: Any, real: Any) -> Any:
    whole, address = ctypes.c_int, ctypes.c_void_p
    matrix = (address, whole)
    function.argtypes = (*[whole] * 6, real, *matrix, *matrix, real, *matrix)
    function.restype = None
    return function


def _library() -> Path:
    found = find_library()
    if found is None:
        raise InputError("MKL is not installed", "--blas", "pip install 'distnn[mkl]', or numpy")
    return found
