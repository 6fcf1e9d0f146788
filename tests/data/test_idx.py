"""IDX files: every type of the format, plain and gzipped; damaged ones are refused by name."""

import gzip
import math
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from distnn.data.rows import fill
from distnn.data.sources import open_data, open_features, open_test_data
from distnn.errors import InputError

CODES = {"u1": 8, "i1": 9, ">i2": 11, ">i4": 12, ">f4": 13, ">f8": 14}
FASHION = Path("/usr/share/datasets/fashion-mnist")


def idx(array, code=None, shape=None):
    """The bytes of an IDX file, written from the format's description."""
    shape = array.shape if shape is None else shape
    code = CODES[next(c for c in CODES if np.dtype(c) == array.dtype)] if code is None else code
    return (
        bytes([0, 0, code, len(shape)])
        + b"".join(struct.pack(">I", length) for length in shape)
        + array.tobytes()
    )


def folder(path, images, labels, test=None, packed=False, kind="ubyte"):
    path.mkdir(exist_ok=True)
    parts = {"train": (images, labels)} | ({"t10k": test} if test is not None else {})
    for part, arrays in parts.items():
        for name, array in zip(("images", "labels"), arrays, strict=True):
            data = array if isinstance(array, bytes) else idx(array)
            end = ".gz" if packed else ""
            dimensions = 3 if name == "images" else 1
            file = path / f"{part}-{name}-idx{dimensions}-{kind}{end}"
            file.write_bytes(gzip.compress(data) if packed else data)
    return path


def filled(rows):
    out = np.empty((len(rows), 1 + rows.features))
    fill(rows, out)
    return out[:, 1:]


def refused(path, match, **arguments):
    with pytest.raises(InputError, match=match) as caught:
        filled(open_data(str(path), **arguments).train.x)
    assert "\n" not in str(caught.value)


IMAGES = np.arange(5 * 3 * 2, dtype="u1").reshape(5, 3, 2)
LABELS = np.array([0, 1, 2, 1, 0], "u1")


@settings(deadline=None, max_examples=60)
@given(
    x=hnp.arrays(
        st.sampled_from(list(CODES)),
        hnp.array_shapes(min_dims=1, max_dims=5, max_side=4),
        elements={"allow_nan": False, "allow_infinity": False},
    ),
    packed=st.booleans(),
)
def test_any_array_comes_back(tmp_path_factory, x, packed):
    labels = np.arange(len(x), dtype=">i4")
    path = folder(tmp_path_factory.mktemp("idx"), x, labels, (x, labels), packed)
    source = open_data(str(path))
    assert source.train.x.shape == x.shape
    assert source.train.x.dtype == x.dtype
    assert source.test is not None
    for rows in (source.train.x, source.test.x, open_features(str(path))):
        assert (filled(rows) == x.reshape(len(x), -1)).all()
    assert (source.train.y == labels).all()
    assert (source.test.y == labels).all()


def test_test_part_or_training_part(tmp_path):
    one = folder(tmp_path / "one", IMAGES, LABELS)
    two = folder(tmp_path / "two", IMAGES, LABELS, (IMAGES[:2], LABELS[:2]), packed=True)
    assert open_data(str(one)).test is None
    assert len(open_data(str(one), test_path=str(two)).test.y) == 2
    assert len(open_test_data(str(one)).y) == 5
    file = one / "train-images-idx3-ubyte"
    assert (filled(open_features(str(file), 6)) == IMAGES.reshape(5, 6)).all()
    refused(one, "--target: .* has its own targets", target="label")


def test_a_plain_file_goes_before_its_gzipped_copy(tmp_path):
    folder(tmp_path, IMAGES, LABELS, packed=True)
    folder(tmp_path, IMAGES + 1, LABELS)
    assert (open_data(str(tmp_path)).train.x.read() == IMAGES + 1).all()


def test_missing_and_doubled_files(tmp_path):
    refused(tmp_path, "no file train-images-idx3-ubyte .*; give a folder with MNIST's file names")
    folder(tmp_path, IMAGES, LABELS)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(IMAGES))
    refused(tmp_path, "no file t10k-labels-idx1-ubyte")
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    (tmp_path / "train-images.idx3-ubyte").write_bytes(idx(IMAGES))
    refused(tmp_path, "are both train-images; leave one")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("images", "match"),
    [
        (idx(IMAGES)[:-1], "claims 30 bytes of data, 29 are there|cut off"),
        (idx(IMAGES) + b"x", "claims 30 bytes of data, 31 are there|more bytes than its header"),
        (idx(IMAGES)[:9], "cut off in its header"),
        (b"", "not an IDX file"),
        (b"\x89PNG....", "not an IDX file"),
        (idx(IMAGES, code=10), "not an IDX file"),
        (idx(IMAGES, shape=(2**32 - 1,) * 3), "header claims 7922816.* bytes"),
        (idx(IMAGES, shape=(2**32 - 1,) * 255), "impossible number of dimensions 255"),
        (idx(IMAGES[:0], shape=(0, 28, 28)), "empty: no rows"),
        (idx(IMAGES[:0], shape=(2**32 - 1, 0, 28)), "empty"),
        (idx(IMAGES[:4]), "4 images, but 5 labels in train-labels"),
        (idx(np.full((5, 1), np.nan, ">f4")), "row 0, column 0 .*: the value is NaN"),
    ],
)
def test_images_that_cannot_be_used(tmp_path, images, match, packed):
    folder(tmp_path / "set", images, LABELS, packed=packed)
    tracemalloc.start()
    refused(tmp_path / "set", f"train-images-idx3-ubyte.*({match})")
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_damaged_gzip(tmp_path):
    path = folder(tmp_path / "set", IMAGES, LABELS, packed=True)
    file = path / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    refused(path, r"ubyte\.gz: damaged or cut off .*; copy or make the file again")
    file.write_bytes(whole[:-8] + b"\0\0\0\0" + whole[-4:])
    refused(path, r"ubyte\.gz: damaged or cut off \(CRC")
    file.write_bytes(idx(IMAGES))
    refused(path, r"ubyte\.gz: damaged or cut off \(Not a gzipped file")


@settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
@given(data=st.data(), packed=st.booleans())
def test_damaged_files_are_refused_or_read(tmp_path_factory, data, packed):
    whole = idx(IMAGES)
    damaged = bytearray(gzip.compress(whole, mtime=0) if packed else whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)) | st.just(len(damaged)))]
    path = folder(tmp_path_factory.mktemp("fuzz"), IMAGES, LABELS, packed=packed)
    next(path.glob("train-images*")).write_bytes(bytes(damaged))
    try:
        rows = open_data(str(path)).train.x
    except InputError:
        return
    assert len(rows) * rows.features <= 1032 * len(damaged)
    try:
        assert np.isfinite(filled(rows)).all()
    except InputError:
        return


@pytest.mark.skipif(not FASHION.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist():
    source = open_data(str(FASHION))
    assert source.train.x.shape == (60000, 28, 28)
    assert source.test is not None
    assert source.test.x.shape == (10000, 28, 28)
    assert (np.bincount(source.train.y) == 6000).all()  # as its own README says
    assert (np.bincount(source.test.y) == 1000).all()
    with gzip.open(FASHION / "t10k-images-idx3-ubyte.gz") as file:
        raw = np.frombuffer(file.read()[16:], "u1").reshape(10000, -1)
    assert math.isclose(filled(source.test.x).sum(), raw.sum(dtype=float))
