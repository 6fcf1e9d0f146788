"""Products of stacks have the bits that each slice has alone."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distnn.nn import products, stacks
from distnn.nn.layout import aligned

SIZES = st.one_of(st.integers(0, 20), st.integers(1, 150))


def draw(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    X = aligned(shape, dtype)
    X[...] = np.random.default_rng(seed).standard_normal(shape)
    return X


def one_by_one(X: np.ndarray, Y: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The oracle: a product of matrices for each slice."""
    out = np.full(shape, np.nan, X.dtype)
    for k in range(len(X)):
        products.product(X[k], Y if Y.ndim == 2 else Y[k], out[k])
    return out


def check_pass(k: int, b: int, m: int, n: int, dtype: str, columns: int = 0) -> None:
    """The three products of a layer (m, n), as a pass makes them of k slices of b rows."""
    A, D, W = draw((k, b, 1 + m), dtype), draw((k, b, n), dtype, 1), draw((1 + m, n), dtype, 2)
    multiply = stacks.of_stacks(products.product)
    for X, Y, shape in (
        (A, W, (k, b, n)),
        (A.mT, D, (k, 1 + m, n)),
        (D, W[1:].T, (k, b, m)),
    ):
        out = np.full(shape, np.nan, dtype)
        for _ in range(2):  # the first time it may be tried what is quickest
            multiply(X, Y, out)
            assert out.tobytes() == one_by_one(X, Y, shape).tobytes()
    if columns:
        Z = np.full((k, b, n), np.nan, dtype)
        for part in (slice(0, columns), slice(columns, n)):
            multiply(A, W[:, part], Z[..., part])
            expected = one_by_one(A, W[:, part], Z[..., part].shape)
            assert Z[..., part].tobytes() == expected.tobytes()


@settings(max_examples=200, deadline=None)
@given(k=st.integers(2, 9), b=SIZES, m=SIZES, n=SIZES, dtype=st.sampled_from(["f4", "f8"]))
@example(k=8, b=1, m=1, n=1, dtype="f4")
@example(k=8, b=2, m=784, n=30, dtype="f4")
@example(k=8, b=8, m=784, n=128, dtype="f4")
def test_products_of_a_pass(k: int, b: int, m: int, n: int, dtype: str) -> None:
    check_pass(k, b, m, max(n, 1), dtype)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    ("k", "b", "m", "n"), [(4, 13, 784, 300), (3, 33, 256, 1024), (2, 65, 512, 257)]
)
def test_large_products_of_a_pass(k: int, b: int, m: int, n: int, dtype: str) -> None:
    assert b * m * n > stacks.LARGE
    check_pass(k, b, m, n, dtype, columns=128)


def by_all_rows(X: np.ndarray, Y: np.ndarray, out: np.ndarray) -> None:
    """A product whose bits depend on the number of rows, but on nothing else."""
    for x, row in zip(X, out, strict=True):
        np.matmul(x, Y, row)
    if len(X) > 100:
        np.nextafter(out, np.inf, out)


def counted(calls: list[int]) -> products.Product:
    def product(X: np.ndarray, Y: np.ndarray, out: np.ndarray) -> None:
        calls.append(len(X))
        by_all_rows(X, Y, out)

    return product


@pytest.mark.parametrize(("rows", "together"), [(60, False), (30, True)])
def test_rows_go_together_only_where_the_bits_are_the_same(rows: int, together: bool) -> None:
    X, Y, calls = draw((3, rows, 300), "f4"), draw((300, 200), "f4", 1), []
    multiply = stacks.of_stacks(counted(calls))
    out = np.empty((3, rows, 200), "f4")
    multiply(X, Y, out)
    calls.clear()
    for scale in (1, 2):
        multiply(X * np.float32(scale), Y, out)
        expected = np.empty_like(out)
        for k in range(3):
            by_all_rows(X[k] * np.float32(scale), Y, expected[k])
        assert out.tobytes() == expected.tobytes()
    assert calls == 2 * ([3 * rows] if together else 3 * [rows])


@pytest.mark.parametrize("transposed", [False, True])
def test_random_numbers_are_laid_out_as_the_matrix(transposed: bool) -> None:
    whole = draw((50, 70), "f4")
    part = whole[1:, 10:40].T if transposed else whole[1:, 10:40]
    made = stacks._random(np.random.default_rng(0), part)
    assert (made.shape, made.strides, made.dtype) == (part.shape, part.strides, part.dtype)
    assert abs(float(made.mean())) < 0.1 < float(made.std())


def test_matrices_are_multiplied_as_before() -> None:
    X, Y = draw((5, 7), "f4"), draw((7, 3), "f4", 1)
    out, expected = np.empty((5, 3), "f4"), np.empty((5, 3), "f4")
    stacks.of_stacks(products.product)(X, Y, out)
    products.product(X, Y, expected)
    assert out.tobytes() == expected.tobytes()
