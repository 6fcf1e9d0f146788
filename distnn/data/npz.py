"""NumPy's npz and npy files, read without pickle."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from distnn.data.binary import DEFLATE_LIMIT, damage_named, file_limit, npy_rows
from distnn.data.rows import Rows, check_unique
from distnn.errors import InputError

REMEDY = "write it with numpy.savez or numpy.savez_compressed"


class Npz:
    """The arrays of an npz file by name.

    Raises:
        InputError: not an npz file; two arrays of one name (``y`` and ``y.npy``).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = file_limit(path)
        with damage_named(str(path)):
            try:
                with zipfile.ZipFile(path) as archive:
                    infos = archive.infolist()
            except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError) as error:
                raise InputError("not an npz file", where=str(path), remedy=REMEDY) from error
        names = [info.filename.removesuffix(".npy") for info in infos]
        check_unique(names, "arrays", str(path))
        self._members = dict(zip(names, infos, strict=True))

    @property
    def names(self) -> list[str]:
        """Names of the arrays."""
        return list(self._members)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def labels(self, name: str) -> Rows:
        """As `rows`, of targets: they may be text."""
        return self.rows(name, text=True)

    def rows(self, name: str, text: bool = False) -> Rows:
        """The array as Rows; InputError if it is missing, damaged, empty or not of numbers."""
        where = f"{self.path}, {name}"
        if name not in self._members:
            there = ", ".join(self.names) or "no array at all"
            raise InputError(
                f"array {name} is missing",
                where=str(self.path),
                remedy=f"the file holds {there[:300]}",
            )
        info = self._members[name]
        expansion = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: DEFLATE_LIMIT}
        if info.compress_type not in expansion or info.flag_bits & 1:
            raise InputError("compressed in another way or encrypted", where=where, remedy=REMEDY)
        most = min(info.compress_size, self._size) * expansion[info.compress_type]
        if info.file_size > most:
            raise InputError(
                f"claims {info.file_size} bytes, its {info.compress_size} bytes in the file"
                f" cannot hold more than {most}",
                where=where,
                remedy="copy or make the file again",
            )
        return npy_rows(lambda: self._open(info, where), info.file_size, where, text)

    @contextmanager
    def _open(self, info: zipfile.ZipInfo, where: str) -> Iterator[IO[bytes]]:
        with zipfile.ZipFile(self.path) as archive:
            try:
                stream = archive.open(info)
            except (ValueError, NotImplementedError, RuntimeError) as error:
                raise InputError(f"damaged ({error})", where=where, remedy=REMEDY) from error
            with stream:
                yield stream
