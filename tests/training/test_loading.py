"""From files to data sets: scaled by the training set's moments, targets as the network wants."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distnn import InputError
from distnn.config.options import TrainConfig
from distnn.data.sources import open_data
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.parallel.comm.shared_memory import SharedMemory
from distnn.training.dataset import Dataset
from distnn.training.loading import Loader, load, saved_scaling

N = 30


def rows(n: int = N) -> np.ndarray:
    return np.random.default_rng(0).normal(5, 3, (n, 4))


def opened(
    folder: Path, output: str | None = None, loss: str | None = None, dtype: str = "float64",
    **arrays: Any,
) -> tuple[Loader, Dataset, Dataset | None]:  # fmt: skip
    np.savez(folder / "set.npz", **arrays)
    config = TrainConfig(output=output, loss=loss)
    loader = Loader.open(open_data(str(folder / "set.npz")), config)
    comm = Communicator(MPI.COMM_SELF)
    loaded = load(comm, SharedMemory(comm), loader.shape(), loader, dtype)
    return loader, loaded.train, loaded.test


def test_real_features_are_standardised_by_the_training_set(tmp_path: Path) -> None:
    X, y = rows(), np.arange(N) % 3
    loader, train, test = opened(tmp_path, x_train=X, y_train=y, x_test=X + 1, y_test=y)
    np.testing.assert_allclose(train.X[:, 1:], (X - X.mean(axis=0)) / X.std(axis=0), atol=1e-12)
    assert test is not None
    np.testing.assert_allclose(test.X[:, 1:], (X + 1 - X.mean(axis=0)) / X.std(axis=0), atol=1e-12)
    assert (train.X[:, 0] == 1).all()
    assert (test.X[:, 0] == 1).all()
    kept = saved_scaling(loader.tensors, "scaling")
    assert kept is not None
    np.testing.assert_allclose(kept.shift, X.mean(axis=0))
    assert saved_scaling(loader.tensors, "target_scaling") is None


def test_pixels_are_divided_by_the_largest(tmp_path: Path) -> None:
    X = np.random.default_rng(0).integers(0, 201, (N, 2, 2)).astype(np.uint8)
    X[0, 0, 0] = 200
    loader, train, _ = opened(tmp_path, x_train=X, y_train=np.arange(N) % 2)
    np.testing.assert_allclose(train.X[:, 1:], X.reshape(N, 4) / 200)
    assert loader.shape().features == 4


def test_class_numbers_take_a_column(tmp_path: Path) -> None:
    y = np.arange(N) % 3
    loader, train, _ = opened(tmp_path, x_train=rows(), y_train=y)
    assert loader.shape().class_column == 3
    assert train.T.shape == (N, 1)
    assert np.array_equal(train.T[:, 0], y)


@pytest.mark.parametrize("output", ["sigmoid", None])
def test_two_classes(tmp_path: Path, output: str | None) -> None:
    y = np.arange(N) % 2
    loader, train, _ = opened(tmp_path, output, x_train=rows(), y_train=y)
    assert loader.shape().outputs == (1 if output else 2)
    assert np.array_equal(train.T[:, 0], y)


def test_real_targets_are_standardised_behind_a_linear_output(tmp_path: Path) -> None:
    y = np.c_[1e6 + 10 * rows()[:, 0], rows()[:, 1]]
    loader, train, test = opened(tmp_path, x_train=rows(), y_train=y, x_test=rows(), y_test=y)
    expected = (y - y.mean(axis=0)) / y.std(axis=0)
    np.testing.assert_allclose(train.T, expected, atol=1e-6)
    assert test is not None
    np.testing.assert_allclose(test.T, expected, atol=1e-6)
    kept = saved_scaling(loader.tensors, "target_scaling")
    assert kept is not None
    undone = train.T.copy()
    kept.undo(undone)
    np.testing.assert_allclose(undone, y, rtol=1e-12)


def test_real_targets_behind_a_bounded_output_stay_as_they_are(tmp_path: Path) -> None:
    y = np.linspace(-1, 1, N)
    _, train, _ = opened(tmp_path, "tanh", x_train=rows(), y_train=y)
    assert np.array_equal(train.T[:, 0], y)


def test_a_value_that_is_not_finite(tmp_path: Path) -> None:
    X = rows()
    X[3, 2] = np.inf
    with pytest.raises(InputError, match=r"set\.npz, x_test, row 3, column 2"):
        opened(tmp_path, x_train=rows(), y_train=np.arange(N) % 2, x_test=X,
               y_test=np.arange(N) % 2)  # fmt: skip


@pytest.mark.parametrize("output", [None, "tanh"])
def test_targets_beyond_the_type(tmp_path: Path, output: str | None) -> None:
    y = np.linspace(0, 1, N)
    sets = {"x_train": rows(), "y_train": y, "x_test": rows(), "y_test": y.copy()}
    sets["y_test"][4] = -1e39
    opened(tmp_path, output, **sets)  # float64 holds it
    place = r"set\.npz, y_test, row 4, column 0 \(counted from 0\): "
    with pytest.raises(InputError, match=place + r"-1e\+39 is beyond the range of float32; use"):
        opened(tmp_path, output, dtype="float32", **sets)
    sets["y_train"][2] = 1e39
    with pytest.raises(InputError, match=r"y_train, row 2, .*1e\+39 is beyond"):
        opened(tmp_path, output, dtype="float32", **sets)


def test_other_rows_have_another_digest(tmp_path: Path) -> None:
    y = np.arange(N) % 2
    digests = [
        opened(tmp_path, x_train=X, y_train=y)[0].tensors["data"].tobytes()
        for X in (rows(), rows(), rows()[::-1])
    ]
    assert digests[0] == digests[1] != digests[2]
