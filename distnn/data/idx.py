"""IDX files, plain or gzipped: the format of MNIST and Fashion-MNIST.

Format: two zero bytes, a type byte, the number of dimensions, each dimension as a big-endian
32-bit integer, then the numbers in C order, big-endian (http://yann.lecun.com/exdb/mnist/).
"""

import math
import re
import struct
from pathlib import Path

import numpy as np

from distnn.data.binary import (
    MAX_DIMENSIONS,
    check_size,
    damage_named,
    file_limit,
    file_opener,
    read_some,
    stream_rows,
)
from distnn.data.rows import Rows, check_shape
from distnn.errors import InputError

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
NAME = re.compile(r"(train|t10k|test)-(images|labels)[-.]idx\d+-[a-z0-9]+(\.gz)?")
REMEDY = "copy or make the file again"


def idx_rows(path: Path) -> Rows:
    """The array of an IDX file, gzipped if its name ends in .gz, as Rows.

    Raises:
        InputError: no IDX file, cut off, empty, or of another size than its header claims.
    """
    where = str(path)
    opener = file_opener(path)
    with damage_named(where), opener() as stream:
        head = read_some(stream, 4, where)
        if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in TYPES:
            raise InputError(
                "not an IDX file", where=where, remedy="give a file in the format of MNIST's"
            )
        dimensions = head[3]
        lengths = read_some(stream, 4 * dimensions, where)
    if len(lengths) < 4 * dimensions:
        raise InputError("cut off in its header", where=where, remedy=REMEDY)
    if dimensions > MAX_DIMENSIONS:
        raise InputError(f"impossible number of dimensions {dimensions}", where=where)
    shape = struct.unpack(f">{dimensions}I", lengths)
    dtype = np.dtype(TYPES[head[2]])
    offset = 4 + 4 * dimensions
    _check_bytes(path, math.prod(shape) * dtype.itemsize, file_limit(path) - offset)
    check_shape(shape, where)
    return stream_rows(opener, offset, shape, dtype, where)


def _check_bytes(path: Path, claimed: int, most: int) -> None:
    if path.suffix != ".gz":
        check_size(claimed, most, str(path))
    elif claimed > most:
        raise InputError(
            f"the header claims {claimed} bytes of data, the file cannot hold more than {most}",
            where=str(path),
            remedy=REMEDY,
        )


def idx_files(folder: Path) -> dict[str, Path]:
    """The standard files of a folder, by "train-images", "test-labels" and so on.

    t10k counts as test; a plain file goes before its gzipped copy.

    Raises:
        InputError: the folder cannot be listed, or two different files are the same part.
    """
    found: dict[str, Path] = {}
    with damage_named(str(folder)):
        paths = sorted(folder.iterdir())  # a name sorts before the same name with .gz
    for path in paths:
        match = NAME.fullmatch(path.name)
        if match is None or not path.is_file():
            continue
        part = f"{match[1].replace('t10k', 'test')}-{match[2]}"
        if part not in found:
            found[part] = path
        elif path.name != found[part].name + ".gz":
            raise InputError(
                f"{found[part].name} and {path.name} are both {part}",
                where=str(folder),
                remedy="leave one of them in the folder",
            )
    return found


def idx_pair(folder: Path, files: dict[str, Path], part: str) -> tuple[Rows, Rows]:
    """Images and labels of a part ("train" or "test").

    Raises:
        InputError: one is missing, damaged, or they differ in length.
    """
    for kind in ("images", "labels"):
        if f"{part}-{kind}" not in files:
            standard = "train" if part == "train" else "t10k"
            example = f"{standard}-{kind}-idx{3 if kind == 'images' else 1}-ubyte"
            raise InputError(
                f"no file {example} (or {example}.gz)",
                where=str(folder),
                remedy="give a folder with MNIST's file names, or an .npz file",
            )
    x, y = (idx_rows(files[f"{part}-{kind}"]) for kind in ("images", "labels"))
    if len(x) != len(y):
        raise InputError(
            f"{len(x)} images, but {len(y)} labels in {Path(y.where).name}",
            where=x.where,
            remedy="give one label for each image",
        )
    return x, y
