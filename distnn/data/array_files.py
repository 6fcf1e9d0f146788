"""Arrays in files of which any run of rows can be read on its own: npy and HDF5.

An npy file is read at the place of the rows rather than mapped into memory: reading a file that was
cut off meanwhile is an error with a name then, in mapped memory it would end the process.
"""

import io
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from distnn.data.binary import (
    MAX_DIMENSIONS,
    NPY_HEADER_LIMIT,
    check_size,
    damage_named,
    npy_header,
    read_into,
    read_some,
)
from distnn.data.rows import Array, Rows, check_numeric, check_shape, rows_per_block
from distnn.errors import InputError

INSTALL = "pip install 'distnn[hdf5]'"
REMEDY = "copy or make the file again"


class RowArray:
    """An array (n, ...) in a file.

    Attributes:
        shape, dtype: as the file has them; text is of dtype object, or of NumPy's own for it.
        where: file and array, for error messages.
        step: rows that are stored together; reading fewer reads them all.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    where: str
    step: int = 1

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def features(self) -> int:
        """Values per row."""
        return math.prod(self.shape[1:])

    def read(self, start: int, end: int) -> Array:
        """The rows start … end, (end - start, ...); InputError if the file is damaged."""
        raise NotImplementedError

    def rows(self) -> Rows:
        """The whole array as `Rows`."""

        def chunks() -> Iterator[Array]:
            step = rows_per_block(self.features * self.dtype.itemsize)
            step = -(-step // self.step) * self.step
            for start in range(0, len(self), step):
                block = self.read(start, min(start + step, len(self)))
                yield block.reshape(len(block), -1)

        return Rows(self.shape, self.dtype, chunks, self.where)

    def _check(self, text: bool) -> None:
        """InputError unless it holds rows of numbers, or text where that is allowed."""
        if not (text and self.dtype.kind in "UO" and self.dtype.itemsize):
            check_numeric(self.dtype, self.where)
        check_shape(self.shape, self.where)


class NpyArray(RowArray):
    """An npy file (numpy.lib.format, versions 1 and 2), in C or Fortran order.

    Args:
        path: the file.
        text: whether it may hold text.

    Raises:
        InputError: no npy file, or another size than its header claims; objects or no numbers.
    """

    def __init__(self, path: Path, text: bool = False) -> None:
        self._path, self.where = path, str(path)
        with damage_named(self.where), open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            head = io.BytesIO(read_some(stream, NPY_HEADER_LIMIT + 12, self.where))
        self.shape, self._fortran, self.dtype = npy_header(head, self.where)
        self._offset = head.tell()
        self._check(text)
        if len(self.shape) > MAX_DIMENSIONS or any(length < 0 for length in self.shape):
            raise InputError(f"impossible shape {self.shape}", self.where, REMEDY)
        check_size(math.prod(self.shape) * self.dtype.itemsize, size - self._offset, self.where)

    def read(self, start: int, end: int) -> Array:
        """See `RowArray.read`."""
        b, item = end - start, self.dtype.itemsize
        with damage_named(self.where), open(self._path, "rb", buffering=0) as stream:
            if not self._fortran or len(self.shape) == 1:
                out = np.empty(b * self.features * item, np.uint8)
                stream.seek(self._offset + start * self.features * item)
                read_into(stream, out, self.where)
                return out.view(self.dtype).reshape(b, *self.shape[1:])
            columns = np.empty((self.features, b * item), np.uint8)
            for j in range(self.features):
                stream.seek(self._offset + (j * len(self) + start) * item)
                read_into(stream, columns[j], self.where)
        # the file runs over rows first: (..., n2, n1, b)
        return columns.view(self.dtype).reshape(*self.shape[:0:-1], b).T


class H5Array(RowArray):
    """A dataset of an HDF5 file, by h5py (the extra ``hdf5``).

    Its rows are best read by whole chunks, of `step` rows.
    """

    def __init__(self, path: Path, name: str, text: bool = False) -> None:
        self._path, self._name, self.where = path, name, f"{path}, {name}"
        with opened_h5(path) as file:
            h5py, dataset = _h5py(self.where), file[name]
            if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
                raise InputError("is no dataset", self.where, "give a dataset of numbers")
            self._is_text = h5py.check_string_dtype(dataset.dtype) is not None
            self.shape = tuple(int(length) for length in dataset.shape)
            self.dtype = np.dtype(object) if self._is_text else dataset.dtype
            self.step = int(dataset.chunks[0]) if dataset.chunks else 1
        self._check(text and self._is_text)

    def read(self, start: int, end: int) -> Array:
        """See `RowArray.read`."""
        with opened_h5(self._path) as file:
            dataset = file[self._name]
            if tuple(dataset.shape) != self.shape:
                raise InputError("changed while it was read", self.where, "start again")
            values = dataset.asstr()[start:end] if self._is_text else dataset[start:end]
        return np.asarray(values)


class Store:
    """Arrays by name.

    Attributes:
        path: the file or folder.
        names: of all arrays in it.
    """

    path: Path
    names: Sequence[str]

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def rows(self, name: str) -> Rows:
        """An array of numbers, see `array`."""
        return self.array(name).rows()

    def labels(self, name: str) -> Rows:
        """An array of targets, see `array`: they may be text."""
        return self.array(name, text=True).rows()

    def array(self, name: str, text: bool = False) -> RowArray:
        """The array; InputError if it is missing or cannot be used.

        Args:
            text: whether it may hold text.
        """
        if name not in self.names:
            listed = ", ".join(self.names) or "no array at all"
            raise InputError(f"array {name} is missing", str(self.path), f"there is {listed[:300]}")
        return self._open(name, text)

    def _open(self, name: str, text: bool) -> RowArray:
        raise NotImplementedError


class NpyStore(Store):
    """npy files by name.

    Args:
        path: the folder, or what stands for it in messages.
        files: by the names of their arrays.
    """

    def __init__(self, path: Path, files: dict[str, Path]) -> None:
        self.path, self._files, self.names = path, files, sorted(files)

    def _open(self, name: str, text: bool) -> RowArray:
        return NpyArray(self._files[name], text)


class H5Store(Store):
    """The datasets at the top of an HDF5 file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with opened_h5(path) as file:
            self.names = sorted(file)

    def _open(self, name: str, text: bool) -> RowArray:
        return H5Array(self.path, name, text)


def is_store(path: Path) -> bool:
    """Whether a path is an HDF5 or npy file by its name, or a folder with x_train.npy or such."""
    if path.is_dir():
        return any((path / f"{name}.npy").is_file() for name in ("x_train", "x_test", "x"))
    return path.suffix in (".npy", ".h5", ".hdf5")


def open_store(path: Path, target: str | None) -> tuple[Store, str | None]:
    """The arrays of a path for which `is_store` holds, and the name of the targets among them.

    An npy file x_train.npy has its targets beside it, as y_train.npy, or in the file that `target`
    names, from the same folder if it is no full path. They are then x_train and y_train.

    Args:
        target: as given; the file of the targets, or the name of the array.

    Raises:
        InputError: there are no targets.
    """
    if path.is_dir():
        return NpyStore(path, {file.stem: file for file in sorted(path.glob("*.npy"))}), target
    if path.suffix != ".npy":
        return H5Store(path), target
    name = target if target is not None else f"y{path.name[1:]}"
    beside = path.parent / name
    if beside == path or not beside.is_file():
        remedy = "name the file with the targets with --target, or give a folder"
        raise InputError(f"its targets are not there ({name[:60]})", str(path), remedy)
    return NpyStore(path, {"x_train": path, "y_train": beside}), "y_train"


def train_name(names: Sequence[str], given: str) -> str:
    """The training set's array of a name: that array, or where it is not there, NAME_train."""
    with_set = f"{given}_train"
    return with_set if given not in names and with_set in names else given


def test_name(given: str) -> str:
    """The array of the test set beside the training set's NAME or NAME_train: NAME_test."""
    return f"{given.removesuffix('_train')}_test"


@contextmanager
def opened_h5(path: Path) -> Iterator[Any]:
    """An HDF5 file, open for reading; what h5py raises in it becomes an InputError."""
    h5py = _h5py(str(path))
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        what = f"damaged, cut off or no HDF5 file ({error})"
        raise InputError(what[:300], str(path), REMEDY) from error


def _h5py(where: str) -> Any:
    try:
        import h5py
    except ImportError:
        raise InputError("HDF5 needs h5py, which is not installed", where, INSTALL) from None
    return h5py
