"""npz and npy files: what NumPy wrote comes back, anything else is refused by name."""

import io
import re
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from distnn.data.rows import Rows, fill
from distnn.data.sources import open_data, open_features, open_test_data
from distnn.errors import InputError


def filled(rows, dtype="float64"):
    out = np.empty((len(rows), 1 + rows.features), dtype)
    fill(rows, out)
    return out


def npz(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def member(header, data=b"", compression=zipfile.ZIP_DEFLATED):
    """An npz file in memory whose x_train has any header that we like."""
    text = repr(header).encode() if not isinstance(header, bytes) else header
    head = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("x_train.npy", head + data)
        labels = io.BytesIO()
        np.save(labels, np.arange(4))
        archive.writestr("y_train.npy", labels.getvalue())
    return buffer.getvalue()


def open_and_fill(path, **arguments):
    source = open_data(str(path), **arguments)
    filled(source.train.x)
    if source.test is not None:
        filled(source.test.x)


def refused(path, match, **arguments):
    with pytest.raises(InputError, match=match) as caught:
        open_and_fill(path, **arguments)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_digits_are_the_published_split():
    source = open_data("digits")
    assert source.train.x.shape == (3823, 8, 8)
    assert source.test is not None
    assert source.test.x.shape == (1797, 8, 8)
    assert np.bincount(source.train.y).sum() == 3823
    X = filled(source.train.x, "float32")
    assert (X[:, 0] == 1).all()
    assert X.max() == 16
    # one nearest neighbour gives UCI's published 98.00 %
    A, B = X[:, 1:], filled(source.test.x, "float32")[:, 1:]
    distance = (A**2).sum(1) - 2 * B @ A.T
    found = source.train.y[distance.argmin(1)]
    assert round(100 * (found == source.test.y).mean(), 2) == 98.00


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    x=hnp.arrays(
        st.sampled_from(["?", "u1", "<i2", ">i4", "<u8", "<f2", ">f4", "<f8"]),
        hnp.array_shapes(min_dims=1, max_dims=4, max_side=5),
        elements={"allow_nan": False, "allow_infinity": False},
    ),
    fortran=st.booleans(),
    compressed=st.booleans(),
)
def test_any_numeric_array_comes_back(tmp_path_factory, x, fortran, compressed):
    path = tmp_path_factory.mktemp("npz") / "data.npz"
    save = np.savez_compressed if compressed else np.savez
    x = np.asfortranarray(x) if fortran else x
    save(path, x_train=x, y_train=np.arange(len(x)))
    source = open_data(str(path))
    assert source.train.x.shape == x.shape
    X = filled(source.train.x)
    assert (X[:, 1:] == x.reshape(len(x), -1)).all()
    assert (X[:, 0] == 1).all()
    assert (source.train.x.read() == x).all()
    assert (filled(Rows.of(x, "x")) == X).all()


def test_blocks_join_without_a_seam(tmp_path, monkeypatch):
    monkeypatch.setattr("distnn.data.binary.FORTRAN_BLOCK_BYTES", 50_000)
    x = np.random.default_rng(0).random((2600, 7, 60))  # 8.7 MB: several blocks of 8 MB
    for name, array in {"c": x, "f": np.asfortranarray(x[:60])}.items():
        path = npz(tmp_path / f"{name}.npz", x_train=array, y_train=np.arange(len(array)))
        rows = open_data(path).train.x
        assert len(list(rows.chunks())) > 1
        assert (filled(rows)[:, 1:] == array.reshape(len(array), -1)).all()


def test_memory_of_reading_is_one_block(tmp_path):
    x = np.zeros((200, 1 << 17), np.float32)  # 100 MB
    np.savez_compressed(tmp_path / "zeros.npz", x_train=x, y_train=np.arange(200))
    out = np.empty((200, 1 + (1 << 17)), np.float32)
    del x
    tracemalloc.start()
    fill(open_data(str(tmp_path / "zeros.npz")).train.x, out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


def test_a_target_by_name(tmp_path):
    x, y = np.zeros((3, 2)), np.arange(3)
    path = npz(
        tmp_path / "d.npz", x_train=x, z_train=y, y_train=-y, w=y + 1, x_test=x, z_test=y + 2
    )
    assert (open_data(path, target="z").train.y == y).all()
    assert (open_data(path, target="z").test.y == y + 2).all()
    assert (open_data(path, target="z_train").test.y == y + 2).all()
    assert (open_data(path, test_path=path, target="z").test.y == y + 2).all()
    refused(path, "w_test is missing", target="w")
    refused(path, "array price is missing; the file holds x_train, z_train", target="price")


def test_test_data(tmp_path):
    x, y = np.zeros((3, 2)), np.arange(3)
    train = npz(tmp_path / "train.npz", x_train=x, y_train=y)
    pair = npz(tmp_path / "pair.npz", x=x[:2], y=y[:2])
    both = npz(tmp_path / "both.npz", x_train=x, y_train=y, x_test=x[:1], y_test=y[:1])
    assert open_data(train).test is None
    assert len(open_data(train, test_path=train).test.y) == 3
    assert len(open_data(train, test_path=pair).test.y) == 2
    assert len(open_data(train, test_path=both).test.y) == 1
    assert len(open_data(both, test_path=pair).test.y) == 2
    assert len(open_test_data("digits").y) == 1797
    wide = npz(tmp_path / "wide.npz", x=np.zeros((3, 5)), y=y)
    refused(train, "5 features per row, the training set has 2", test_path=wide)


def test_features_to_predict(tmp_path):
    x = np.random.default_rng(0).random((3, 2, 2))
    np.save(tmp_path / "x.npy", x)
    npz(tmp_path / "one.npz", anything=x)
    npz(tmp_path / "two.npz", x_train=x[:1], x_test=x)
    for name in ("x.npy", "one.npz", "two.npz"):
        rows = open_features(str(tmp_path / name), 4)
        assert (filled(rows)[:, 1:] == x.reshape(3, 4)).all()
    with pytest.raises(InputError, match=r"x\.npy: 4 features per row, the training set has 5"):
        open_features(str(tmp_path / "x.npy"), 5)
    npz(tmp_path / "many.npz", a=x, b=x)
    with pytest.raises(InputError, match="array x is missing; the file holds a, b"):
        open_features(str(tmp_path / "many.npz"))


X, Y = np.zeros((4, 3)), np.arange(4)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"y_train": Y}, r"data\.npz: array x_train is missing; the file holds y_train"),
        ({"x_train": X}, "array y_train is missing; the file holds x_train"),
        ({"a": X}, "array x_train is missing; the file holds a"),
        ({}, "array x_train is missing; the file holds no array"),
        ({"x_train": X, "y_train": Y, "x_test": X}, "array y_test is missing"),
        ({"x_train": X, "y_train": Y, "y_test": Y}, "array x_test is missing"),
        ({"x_train": X, "y_train": Y[:3]}, "x_train has 4 rows, y_train has 3; give one target"),
        ({"x_train": X[:0], "y_train": Y[:0]}, "x_train: empty: no rows"),
        ({"x_train": X[:, :0], "y_train": Y}, "x_train: empty: shape .* has no features"),
        ({"x_train": np.float64(1), "y_train": Y}, "x_train: a single value"),
        ({"x_train": X.astype(object), "y_train": Y}, "x_train: holds Python objects; pickled"),
        ({"x_train": X, "y_train": Y.astype(object)}, "y_train: .*pickled arrays are refused"),
        ({"x_train": X.astype("U3"), "y_train": Y}, "x_train: type <U3 is not a number's; use"),
        ({"x_train": X + 1j, "y_train": Y}, "x_train: type complex128"),
        ({"x_train": X.astype([("a", "f4")]), "y_train": Y}, "x_train: type .* is not a number"),
        (
            {"x_train": X, "y_train": Y, "x_test": np.zeros((4, 2)), "y_test": Y},
            "x_test: 2 features per row, the training set has 3",
        ),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path, arrays, match):
    refused(npz(tmp_path / "data.npz", **arrays), match)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (np.nan, "x_train, row 2, column 1 .*: the value is NaN; remove"),
        (-np.inf, "the value is infinity"),
    ],
)
def test_a_value_that_is_not_finite_is_named(tmp_path, value, match):
    x = X.copy()
    x[2, 1] = value
    refused(npz(tmp_path / "data.npz", x_train=x, y_train=Y), match)


def test_a_value_beyond_float32_is_named(tmp_path):
    x = X.copy()
    x[3, 2] = 1e300
    rows = open_data(npz(tmp_path / "data.npz", x_train=x, y_train=Y)).train.x
    assert filled(rows, "float64").max() == 1e300
    with pytest.raises(InputError, match=r"row 3, column 2 .*1e\+300 is beyond.*float32; use"):
        filled(rows, "float32")


@pytest.mark.parametrize(
    ("header", "data", "match"),
    [
        (
            {"descr": "<f8", "fortran_order": False, "shape": (10**12, 784)},
            b"",
            "claims 6272000000000000 bytes of data, 0 are there",
        ),
        ({"descr": "<f8", "fortran_order": False, "shape": (4, 2)}, b"12345678", "claims 64 bytes"),
        ({"descr": "<f8", "fortran_order": False, "shape": (1,)}, b"x" * 9, "claims 8 bytes"),
        ({"descr": "<f8", "fortran_order": False, "shape": (-1, -1)}, b"x" * 8, "impossible shape"),
        ({"descr": "<f8", "fortran_order": True, "shape": (1,) * 99}, b"x" * 8, "impossible shape"),
        ({"descr": "<f8", "fortran_order": False, "shape": (10**15, 0)}, b"", "empty"),
        ({"descr": "|O", "fortran_order": False, "shape": (4,)}, b"cos\nsystem\n", "pickled"),
        ({"descr": "|V8", "fortran_order": False, "shape": (1,)}, b"x" * 8, "not a number"),
        (b"__import__('os').system('true')", b"", "no valid npy header"),
        (b"(" * 5000, b"", "no valid npy header"),
        (b"{'descr': '<f8'" + b" " * 20000, b"", "no valid npy header"),
    ],
)
def test_headers_that_lie(tmp_path, header, data, match):
    path = tmp_path / "hostile.npz"
    path.write_bytes(member(header, data))
    tracemalloc.start()
    refused(path, "x_train: .*" + match)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_an_array_beyond_the_machines_memory_is_not_read(tmp_path, monkeypatch):
    zeros = np.zeros((1 << 13, 1 << 10), np.float32)  # 32 MB, 32 kB in the file
    np.savez_compressed(tmp_path / "d.npz", x_train=X, y_train=zeros[:4])
    path = tmp_path / "big.npz"
    np.savez_compressed(path, x_train=zeros[:, :1], y_train=zeros)
    del zeros
    pages = {"SC_PHYS_PAGES": 1 << 12, "SC_PAGE_SIZE": 1 << 12}  # 16 MB
    monkeypatch.setattr("distnn.data.rows.os.sysconf", pages.get)
    open_and_fill(tmp_path / "d.npz")
    tracemalloc.start()
    refused(path, r"big\.npz, y_train: needs 32 MB of memory, this machine has 16 MB; give fewer")
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_two_arrays_of_one_name(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, x_train=X, y_train=Y)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("y_train", archive.read("y_train.npy"))
    refused(path, r"d\.npz: two arrays are named 'y_train'; rename one of them")


def test_sizes_in_the_directory_that_lie(tmp_path):
    header = {"descr": "|u1", "fortran_order": False, "shape": (1 << 31,)}
    good = member(header, b"x" * 100)
    info = zipfile.ZipFile(io.BytesIO(good)).infolist()[0]
    lie = len(repr(header)) + 10 + (1 << 31)
    assert good.count(info.file_size.to_bytes(4, "little")) == 2
    path = tmp_path / "hostile.npz"
    path.write_bytes(good.replace(info.file_size.to_bytes(4, "little"), lie.to_bytes(4, "little")))
    refused(path, "x_train: claims 2147483.* bytes, its .* bytes in the file cannot hold more")


def test_files_that_are_no_npz(tmp_path):
    (tmp_path / "text.npz").write_text("x_train = 1")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.save(tmp_path / "array.npy", X)
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    for name in ("text.npz", "empty.npz", "array.npz"):
        refused(tmp_path / name, f"{re.escape(name)}: not an npz file; write it with numpy.savez")
    refused(tmp_path / "none.npz", r"none\.npz: no such file; give digits")
    (tmp_path / "data.xlsx").write_bytes(b"")
    refused(
        tmp_path / "data.xlsx", r"unknown format; give digits, an \.npz or \.h5 file, .*parquet"
    )
    refused("digits", "--target: digits has its own targets", target="z")
    path = tmp_path / "lzma.npz"
    path.write_bytes(member(b"", b"", zipfile.ZIP_LZMA))
    refused(path, "compressed in another way")


GOOD = member({"descr": "<i4", "fortran_order": False, "shape": (4, 3)}, bytes(range(48)))


@settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_files_are_refused_or_read(tmp_path_factory, data):
    stored = member(
        {"descr": "<i4", "fortran_order": True, "shape": (4, 3)},
        bytes(range(48)),
        zipfile.ZIP_STORED,
    )
    damaged = bytearray(data.draw(st.sampled_from([GOOD, stored])))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)) | st.just(len(damaged)))]
    path = tmp_path_factory.mktemp("fuzz") / "data.npz"
    path.write_bytes(bytes(damaged))
    for use in (open_data, open_features):
        try:
            opened = use(str(path))
        except InputError:
            continue
        rows = opened if isinstance(opened, Rows) else opened.train.x
        assert rows.features * len(rows) < 1e6
        try:
            assert np.isfinite(filled(rows)).all()
        except InputError:
            continue


def test_labels_may_be_text(tmp_path):
    labels = np.array(["b", "a", "b", "a"])
    path = tmp_path / "text.npz"
    np.savez(path, x_train=X[:4], y_train=labels)
    source = open_data(str(path))
    assert source.train.y.tolist() == labels.tolist()
    np.savez(path, x_train=labels[:, None], y_train=labels)
    refused(path, "x_train: type <U1 is not a number's")
    damaged = np.array([0x61, 0x62, 0x110000, 0x61], np.uint32).view("<U1")
    np.savez(path, x_train=X[:4], y_train=damaged)
    refused(path, "y_train: damaged text")
