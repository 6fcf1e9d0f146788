"""The matrix product, whatever library computes it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn.errors import InputError
from distnn.nn import products
from distnn.nn.network import Network

needs_mkl = pytest.mark.skipif(products.find_library() is None, reason="MKL is not installed")
BACKENDS = ["numpy", pytest.param("mkl", marks=needs_mkl)]


@pytest.fixture
def chosen_again():
    yield
    products.use("numpy")


def matrix(rng, rows, columns, kind, dtype):
    """Small whole numbers, so that any order of summation gives the same; laid out as `kind`."""
    values = rng.integers(-8, 9, (rows, columns)).astype(dtype)
    if kind == "transposed":
        return np.asfortranarray(values)
    if kind == "below a bias row":
        return np.concatenate([np.ones((1, columns), dtype), values])[1:]
    if kind == "beside a ones column, transposed":
        return np.concatenate([np.ones((1, columns), dtype), values]).T.copy()[:, 1:].T
    return values


KINDS = ["plain", "transposed", "below a bias row", "beside a ones column, transposed"]


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.usefixtures("chosen_again")
def test_product_of_matrices_as_the_passes_lay_them_out(name):
    products.use(name)

    @given(
        sizes=st.tuples(*[st.integers(1, 40)] * 3),
        kinds=st.tuples(*[st.sampled_from(KINDS)] * 2),
        dtype=st.sampled_from(["f4", "f8"]),
    )
    def check(sizes, kinds, dtype):
        m, k, n = sizes
        rng = np.random.default_rng(m * 1600 + k * 40 + n)
        X, Y = matrix(rng, m, k, kinds[0], dtype), matrix(rng, k, n, kinds[1], dtype)
        out = np.full((m, n), np.nan, dtype)
        products.product(X, Y, out)
        exact = (X.astype(int)[:, :, None] * Y.astype(int)[None]).sum(axis=1)
        assert np.array_equal(out, exact)

    check()


@needs_mkl
@pytest.mark.usefixtures("chosen_again")
def test_the_passes_agree_with_those_of_numpy():
    rng = np.random.default_rng(0)
    X, T = rng.standard_normal((33, 20)), rng.integers(0, 5, 33)
    net = Network([20, 30, 5], dtype="float64")
    loss, gradients = net.loss_and_gradients(X, T)
    products.use("mkl")
    assert products.in_use().startswith("mkl 20")
    other_loss, others = net.loss_and_gradients(X, T)
    assert other_loss == pytest.approx(loss, rel=1e-12)
    for g, h in zip(gradients, others, strict=True):
        assert np.allclose(g, h, rtol=0, atol=1e-14)


@needs_mkl
@pytest.mark.usefixtures("chosen_again")
def test_mkl_gives_the_same_bits_wherever_the_matrices_lie():
    products.use("mkl")
    rng = np.random.default_rng(1)
    X, Y = rng.standard_normal((50, 70), "f4"), rng.standard_normal((70, 30), "f4")
    results = set()
    for shift in range(0, 16, 3):
        room = np.empty(X.size + shift, "f4")
        moved = room[shift:].reshape(X.shape)
        moved[...] = X
        out = np.empty((50, 30), "f4")
        products.product(moved, Y, out)
        results.add(out.tobytes())
    assert len(results) == 1


def test_auto_is_mkl_only_on_the_processors_it_is_made_for(monkeypatch):
    for installed in (None, Path("libmkl_rt.so.3")):
        monkeypatch.setattr(products, "find_library", lambda found=installed: found)
        for intel in (False, True):
            monkeypatch.setattr(products, "_is_intel", lambda found=intel: found)
            assert products.chosen("auto") == ("mkl" if installed and intel else "numpy")
            assert products.chosen("numpy") == "numpy"


def test_mkl_that_is_not_there(monkeypatch):
    monkeypatch.setattr(products, "find_library", lambda: None)
    with pytest.raises(InputError, match=r"--blas: MKL is not installed; pip install"):
        products.chosen("mkl")
    with pytest.raises(InputError, match="not installed"):
        products.use("mkl")
