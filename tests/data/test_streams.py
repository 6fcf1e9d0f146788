"""Parquet, npy and HDF5 read block by block give what they hold, or name the damage."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn.data import blocks as blocks_module
from distnn.data.array_files import NpyArray
from distnn.data.blocks import sample_of_targets
from distnn.data.options import TableOptions
from distnn.data.sources import open_data, open_features, open_test_data
from distnn.data.streams import LARGE, check_classes, open_blocks, window_rows
from distnn.data.targets import Targets
from distnn.errors import InputError

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
h5py = pytest.importorskip("h5py")
N, K = 1000, 5
RNG = np.random.default_rng(0)
X, Y, W = RNG.normal(size=(N, K)), RNG.normal(size=N), RNG.random(N)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks_module, "BLOCK_VALUES", 70 * K)


def folder(path: Path) -> Path:
    np.save(path / "x_train.npy", X)
    np.save(path / "y_train.npy", Y)
    np.save(path / "w_train.npy", W)
    np.save(path / "w_test.npy", W[:9])
    np.save(path / "x_test.npy", X[:9])
    np.save(path / "y_test.npy", Y[:9])
    return path


def fortran(path: Path) -> Path:
    folder(path)
    np.save(path / "x_train.npy", np.asfortranarray(X))
    return path


def pair(path: Path) -> Path:
    np.save(path / "x_some.npy", X)
    np.save(path / "y_some.npy", Y)
    return path / "x_some.npy"


def hdf5(path: Path) -> Path:
    with h5py.File(path / "a.h5", "w") as file:
        file.create_dataset("x_train", data=X, chunks=(30, K))
        file["y_train"], file["w_train"] = Y, W
        file["x_test"], file["y_test"], file["w_test"] = X[:9], Y[:9], W[:9]
    return path / "a.h5"


def table(rows=slice(None), **more):
    columns = {f"x{j}": X[rows, j] for j in range(K)}
    return pa.table({**columns, "w": W[rows], "y": Y[rows], **more})


def one_parquet(path: Path) -> Path:
    parquet.write_table(table(), path / "a.parquet", row_group_size=130)
    return path / "a.parquet"


def several_parquets(path: Path) -> Path:
    parquet.write_table(table(slice(400)), path / "a.parquet", row_group_size=130)
    parquet.write_table(table(slice(400, N)), path / "b.parquet", row_group_size=600)
    return path


KINDS = (folder, fortran, pair, hdf5, one_parquet, several_parquets)


@pytest.mark.parametrize("make", KINDS)
def test_blocks_hold_all_rows_wherever_one_starts(make, tmp_path):
    path = make(tmp_path)
    options = TableOptions(weight=None if make is pair else "w")
    part = open_data(str(path), options=options, window=200).train
    blocks = open_blocks(path, None, options, part.preparation)
    assert len(part.x) == len(blocks) == N
    assert len(blocks.sizes) > 1
    for found in (part.blocks, blocks):
        assert found.sizes == part.blocks.sizes
        seen = np.zeros(N, int)
        for block in np.random.default_rng(1).permutation(len(found.sizes)):
            for piece in found.read(int(block)):
                rows = slice(piece.start, piece.start + len(piece.x))
                seen[rows] += 1
                assert (piece.x == X[rows]).all()
                assert (piece.y == Y[rows]).all()
                assert piece.weights is None or (piece.weights == W[rows]).all()
        assert (seen == 1).all()


@pytest.mark.parametrize("make", KINDS)
def test_in_memory_is_the_same_set(make, tmp_path):
    path = make(tmp_path)
    source = open_data(str(path), options=TableOptions(drop="w") if path.suffix == ".parquet"
                       or make is several_parquets else TableOptions())  # fmt: skip
    assert source.train.blocks is None
    assert (source.train.x.read() == X).all()
    assert (source.train.y == Y).all()
    if make in (folder, fortran, hdf5):
        assert (source.test.x.read() == X[:9]).all()
        assert (open_test_data(str(path)).y == Y[:9]).all()
        assert len(open_features(str(path))) == 9


def test_text_labels_of_npy_and_hdf5_are_classes(tmp_path):
    names = np.array(["b", "a", "c"])[np.arange(N) % 3]
    np.save(tmp_path / "x_train.npy", X)
    np.save(tmp_path / "y_train.npy", names)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x_train"] = X
        file["y_train"] = names.tolist()
    for path in (tmp_path, tmp_path / "a.h5"):
        for window in (0, 200):
            part = open_data(str(path), window=window).train
            assert Targets.deduce(part.y).names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("y", "task"),
    [
        (np.arange(N) % 4, None),
        (np.arange(N) % 4 + 0.5, None),
        (np.arange(N) % 2 == 0, None),
        (np.arange(N) % 2 * 1.0, None),
        (np.arange(N), "regression"),
        (np.arange(N) / 7, None),
        (np.array([f"c{i % 5}" for i in range(N)], object), None),
        (X[:, :2], None),
    ],
)
@pytest.mark.parametrize("by_value", [False, True])
def test_what_stands_in_for_targets_tells_the_same_task(y, task, by_value):
    parts = np.array_split(y, 7)
    whole = Targets.deduce(y, task=task, by_value=by_value)
    few = Targets.deduce(sample_of_targets(parts, "y"), task=task, by_value=by_value)
    for name in ("task", "n_out", "classes", "names"):
        assert getattr(few, name) == getattr(whole, name), name


def test_more_classes_than_are_looked_for_are_no_classes(monkeypatch):
    monkeypatch.setattr(blocks_module, "MOST_LABELS", 10)
    monkeypatch.setattr("distnn.data.streams.MOST_LABELS", 10)
    for y, task in ((np.arange(N) % 10, None), (np.arange(N) / 3, None)):
        few = sample_of_targets(np.array_split(y, 9), "y")
        assert len(np.unique(few)) <= 11
        targets = Targets.deduce(few, task=task)
        assert targets.task == Targets.deduce(y, task=task).task
        check_classes(targets)
    many = Targets.deduce(sample_of_targets([np.arange(N) % 11], "y"))
    with pytest.raises(InputError, match="more than 10 classes"):
        check_classes(many)
    with pytest.raises(InputError, match="more than 10 different texts"):
        sample_of_targets([np.array([f"c{i}" for i in range(11)], object)], "y")


def test_whole_numbers_are_asked_about_as_in_memory():
    for y in (np.arange(N), np.arange(N) // 2 * 1.0):
        with (
            pytest.raises(InputError, match="--task")
            if y.dtype.kind == "i"
            else pytest.raises(AssertionError)
        ):
            Targets.deduce(sample_of_targets(np.array_split(y, 3), "y"), by_value=True)
            raise AssertionError  # real ones are amounts, as in memory
    with pytest.raises(InputError, match="one-hot"):
        sample_of_targets([np.eye(4, dtype=int)], "y")


@given(rows=st.integers(1, 10**6), columns=st.integers(1, 50))
def test_auto_goes_by_the_values_of_the_file_alone(rows, columns):
    assert window_rows(columns, 64, None) == max(64, (1 << 22) // (1 + columns))
    assert LARGE == 2**28


def test_a_file_that_is_large_is_read_in_windows_without_a_word(tmp_path, monkeypatch):
    path = one_parquet(tmp_path)
    monkeypatch.setattr("distnn.data.streams.LARGE", N * (K + 2))
    assert open_data(str(path), window=None).train.blocks is not None
    monkeypatch.setattr("distnn.data.streams.LARGE", N * (K + 2) + 1)
    assert open_data(str(path), window=None).train.blocks is None


def damaged_group(path: Path) -> str:
    file = one_parquet(path)
    with parquet.ParquetFile(file) as opened:
        column = opened.metadata.row_group(3).column(0)
        offset, length = column.dictionary_page_offset or column.data_page_offset, 60
    with open(file, "r+b") as stream:
        stream.seek(offset)
        stream.write(b"\xff" * length)
    return "row group 3"


def test_a_damaged_row_group_is_named(tmp_path):
    path, whole = tmp_path / "a.parquet", one_parquet(tmp_path)
    part = open_data(str(whole), options=TableOptions(drop="w"), window=200).train
    name = damaged_group(tmp_path)
    list(part.blocks.read(2))
    with pytest.raises(InputError, match=f"a.parquet, {name}"):
        list(part.blocks.read(3))
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(InputError, match="row group 0"):
        list(part.blocks.read(0))


def test_a_row_group_of_another_schema_or_size_is_named(tmp_path):
    path = one_parquet(tmp_path)
    part = open_data(str(path), options=TableOptions(drop="w"), window=200).train
    parquet.write_table(table().drop_columns(["x2"]), path, row_group_size=130)
    with pytest.raises(InputError, match="row group 1"):
        list(part.blocks.read(1))
    parquet.write_table(table(), path, row_group_size=131)
    with pytest.raises(InputError, match="row group 1: changed"):
        list(part.blocks.read(1))


def test_arrays_that_were_cut_off_meanwhile_are_named(tmp_path):
    for make in (folder, hdf5):
        path = make(tmp_path)
        part = open_data(str(path), window=200).train
        file = path / "x_train.npy" if path.is_dir() else path
        os.truncate(file, file.stat().st_size // 2)
        with pytest.raises(InputError, match=file.name):
            list(part.blocks.read(len(part.blocks.sizes) - 1))


BAD = {
    "no targets": (lambda p: np.save(p / "x_a.npy", X), "x_a.npy", "y_a.npy"),
    "short targets": (
        lambda p: (np.save(p / "x_train.npy", X), np.save(p / "y_train.npy", Y[:-1])), "", "999",
    ),
    "no rows array": (
        lambda p: h5py.File(p / "b.h5", "w").close(), "b.h5", "x_train is missing",
    ),
    "no hdf5": (lambda p: (p / "b.h5").write_bytes(b"nothing"), "b.h5", "no HDF5"),
    "objects": (
        lambda p: (np.save(p / "x_train.npy", X), np.save(p / "y_train.npy", np.array([{}] * N))),
        "", "y_train.npy",
    ),
    "csv": (lambda p: (p / "a.csv").write_text("a,b\n1,2\n"), "a.csv", "--window"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name, tmp_path):
    make, file, match = BAD[name]
    make(tmp_path)
    with pytest.raises(InputError, match=match):
        open_data(str(tmp_path / file), window=200)


def test_a_window_smaller_than_a_batch_is_refused():
    with pytest.raises(InputError, match="--batch-size"):
        window_rows(3, 64, 63)


def test_rows_of_an_npy_file_as_numpy_has_them(tmp_path):
    A = RNG.integers(0, 9, (37, 3, 2)).astype("u1")
    for order in "CF":
        np.save(tmp_path / "a.npy", np.asarray(A, order=order))
        array = NpyArray(tmp_path / "a.npy")
        assert (array.read(5, 21) == A[5:21]).all()
        assert array.features == 6
