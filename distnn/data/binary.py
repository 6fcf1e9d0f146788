"""Decoding of binary files (npy, IDX): arrays in blocks of rows, within bounded memory.

The size that a header gives is checked against what the file can hold before memory is allocated:
the exact size where that is known, 1032 times the compressed size for deflate, which is the most
that deflate can expand (RFC 1951: 258 bytes from 2 bits, https://zlib.net/zlib_tech.html).
"""

import gzip
import io
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from distnn.data.rows import Array, Rows, check_numeric, check_shape, rows_per_block
from distnn.errors import InputError

DEFLATE_LIMIT = 1032
FORTRAN_BLOCK_BYTES = 32 << 20
NPY_HEADER_LIMIT = 10_000
MAX_DIMENSIONS = 32

Opener = Callable[[], AbstractContextManager[IO[bytes]]]


@contextmanager
def damage_named(where: str) -> Iterator[None]:
    """Errors of reading zip, gzip and plain files become an InputError."""
    try:
        yield
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputError(
            f"damaged or cut off ({error})", where=where, remedy="copy or make the file again"
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror or error})",
            where=where,
            remedy="check the path and its permissions",
        ) from error


def file_opener(path: Path) -> Opener:
    """Opens the bytes of a file, those of a gzip file decompressed."""

    @contextmanager
    def opened() -> Iterator[IO[bytes]]:
        with gzip.GzipFile(path) if path.suffix == ".gz" else open(path, "rb") as stream:
            yield cast(IO[bytes], stream)

    return opened


def file_limit(path: Path) -> int:
    """The most bytes that ``file_opener(path)`` can deliver."""
    with damage_named(str(path)):
        size = os.stat(path).st_size
    return size * DEFLATE_LIMIT if path.suffix == ".gz" else size


def read_some(stream: IO[bytes], count: int, where: str) -> bytes:
    """Up to ``count`` bytes: fewer only at the end of the stream."""
    parts = []
    with damage_named(where):
        while count > 0:
            part = stream.read(count)
            if not part:
                break
            parts.append(part)
            count -= len(part)
    return b"".join(parts)


def read_into(stream: IO[bytes], buffer: Array, where: str) -> None:
    """Fill ``buffer`` (uint8, contiguous); InputError if the stream ends before."""
    view = buffer.data
    while len(view) > 0:
        with damage_named(where):
            part = stream.read(min(len(view), 1 << 20))
        if not part:
            raise InputError(
                "cut off: the file ends before its data",
                where=where,
                remedy="copy or make the file again",
            )
        view[: len(part)] = part
        view = view[len(part) :]


def stream_rows(
    opener: Opener,
    offset: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    where: str,
    fortran: bool = False,
) -> Rows:
    """Rows whose numbers stand at ``offset`` of a stream, in C or Fortran order."""
    make = _fortran_blocks if fortran and len(shape) > 1 else _c_blocks
    return Rows(shape, dtype, lambda: make(opener, offset, shape, dtype, where), where)


def _c_blocks(
    opener: Opener, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any], where: str
) -> Iterator[Array]:
    n, features = shape[0], math.prod(shape[1:])
    row_bytes = features * dtype.itemsize
    step = min(n, rows_per_block(row_bytes))
    buffer = np.empty(step * row_bytes, np.uint8)
    with damage_named(where), opener() as stream:
        read_some(stream, offset, where)
        for start in range(0, n, step):
            b = min(step, n - start)
            read_into(stream, buffer[: b * row_bytes], where)
            yield buffer[: b * row_bytes].view(dtype).reshape(b, features)
        if read_some(stream, 1, where):
            raise InputError(
                "holds more bytes than its header says",
                where=where,
                remedy="copy or make the file again",
            )


def _fortran_blocks(
    opener: Opener, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any], where: str
) -> Iterator[Array]:
    """Columns lie one after the other, so each pass over the stream collects one block of rows."""
    n, features, item = shape[0], math.prod(shape[1:]), dtype.itemsize
    step = rows_per_block(features * item, FORTRAN_BLOCK_BYTES)
    for start in range(0, n, step):
        b = min(step, n - start)
        buffer = np.empty((features, b * item), np.uint8)
        with damage_named(where), opener() as stream:
            stream.seek(offset + start * item)
            for j in range(features):
                read_into(stream, buffer[j], where)
                stream.seek((n - b) * item, io.SEEK_CUR)
        columns = buffer.view(dtype).reshape(*shape[:0:-1], b)  # (..., n2, n1, b)
        yield columns.T.reshape(b, features)


def npy_rows(opener: Opener, size: int, where: str, text: bool = False) -> Rows:
    """Rows of an array in NumPy's npy format (numpy.lib.format, versions 1 and 2).

    Args:
        opener: opens the array's bytes, header included.
        size: how many bytes there are.
        where: file and array.
        text: whether the array may hold text, as class names.

    Raises:
        InputError: no npy header; objects or no numbers; another size than it says; empty.
    """
    with damage_named(where), opener() as stream:
        head = io.BytesIO(read_some(stream, NPY_HEADER_LIMIT + 12, where))
    shape, fortran, dtype = npy_header(head, where)
    if not (text and dtype.kind == "U" and dtype.itemsize):
        check_numeric(dtype, where)
    if len(shape) > MAX_DIMENSIONS or any(length < 0 for length in shape):
        raise InputError(f"impossible shape {shape}", where=where, remedy="make the file again")
    check_size(math.prod(shape) * dtype.itemsize, size - head.tell(), where)
    check_shape(shape, where)
    return stream_rows(opener, head.tell(), shape, dtype, where, fortran)


def check_size(claimed: int, there: int, where: str) -> None:
    """InputError unless there are as many bytes as the header claims."""
    if claimed != there:
        raise InputError(
            f"the header claims {claimed} bytes of data, {there} are there",
            where=where,
            remedy="copy or make the file again",
        )


def npy_header(head: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and dtype; `head` is left at the data."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        version = np.lib.format.read_magic(head)
        if version not in readers:
            raise ValueError(f"version {version}")
        shape, fortran, dtype = readers[version](head, max_header_size=NPY_HEADER_LIMIT)
    except Exception as error:
        # The parser evaluates a literal from the file, which may raise nearly anything.
        raise InputError(
            f"no valid npy header ({error})", where=where, remedy="write it with numpy.savez"
        ) from error
    return tuple(int(length) for length in shape), bool(fortran), dtype
