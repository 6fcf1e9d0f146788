"""Products of stacks have the bits that each slice has alone."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distnn.errors import InputError
from distnn.nn import products, stacks
from distnn.nn.layout import aligned

SIZES = st.one_of(st.integers(0, 20), st.integers(1, 150))


def draw(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    X = aligned(shape, dtype)
    X[...] = np.random.default_rng(seed).standard_normal(shape)
    return X


@pytest.fixture(params=["numpy", "onednn", "mkl"])
def library(request: pytest.FixtureRequest) -> Iterator[str]:
    try:
        products.use(request.param)
    except InputError as error:
        pytest.skip(str(error))
    yield request.param
    products.use("numpy")


def one_by_one(X: np.ndarray, Y: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The oracle: a product of matrices for each slice."""
    out = np.full(shape, np.nan, "f4" if X.dtype == "u2" else X.dtype)
    product = products.arithmetic("bfloat16" if X.dtype == "u2" else X.dtype.name).product
    for k in range(len(X)):
        product(X[k], Y if Y.ndim == 2 else Y[k], out[k])
    return out


def check_pass(k: int, b: int, m: int, n: int, dtype: str, columns: int = 0) -> None:
    """The three products of a layer (m, n), as a pass makes them of k slices of b rows."""
    arithmetic = products.arithmetic(dtype)
    kind = "f8" if dtype == "float64" else "f4"
    A, D, W = (
        arithmetic.factor(draw(shape, kind, seed))
        for seed, shape in enumerate(((k, b, 1 + m), (k, b, n), (1 + m, n)))
    )
    multiply = stacks.of_stacks(arithmetic)
    for X, Y, shape in (
        (A, W, (k, b, n)),
        (A.mT, D, (k, 1 + m, n)),
        (D, W[1:].T, (k, b, m)),
    ):
        out = np.full(shape, np.nan, kind)
        for _ in range(2):  # the first time it may be tried what is quickest
            multiply(X, Y, out)
            assert out.tobytes() == one_by_one(X, Y, shape).tobytes()
    if columns:
        Z = np.full((k, b, n), np.nan, kind)
        for part in (slice(0, columns), slice(columns, n)):
            multiply(A, W[:, part], Z[..., part])
            expected = one_by_one(A, W[:, part], Z[..., part].shape)
            assert Z[..., part].tobytes() == expected.tobytes()


PRECISIONS = ["float32", "float64", "bfloat16"]
EXAMPLES = {"numpy": 200, "onednn": 20, "mkl": 20}  # oneDNN compiles for every shape


def test_products_of_a_pass(library: str) -> None:
    @settings(max_examples=EXAMPLES[library], deadline=None)
    @given(k=st.integers(2, 9), b=SIZES, m=SIZES, n=SIZES, dtype=st.sampled_from(PRECISIONS))
    @example(k=8, b=1, m=1, n=1, dtype="float32")
    @example(k=8, b=2, m=784, n=30, dtype="float32")
    @example(k=8, b=8, m=784, n=128, dtype="float32")
    @example(k=8, b=2, m=784, n=30, dtype="bfloat16")
    def check(k: int, b: int, m: int, n: int, dtype: str) -> None:
        check_pass(k, b, m, max(n, 1), dtype)

    check()


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(
    ("k", "b", "m", "n"), [(4, 13, 784, 300), (3, 33, 256, 1024), (2, 65, 512, 257)]
)
def test_large_products_of_a_pass(k: int, b: int, m: int, n: int, dtype: str) -> None:
    assert b * m * n > products.LARGE
    check_pass(k, b, m, n, dtype, columns=128)


def by_all_rows(X: np.ndarray, Y: np.ndarray, out: np.ndarray) -> None:
    """A product whose bits depend on the number of rows, but on nothing else."""
    for x, row in zip(X, out, strict=True):
        np.matmul(x, Y, row)
    if len(X) > 100:
        np.nextafter(out, np.inf, out)


def counted(calls: list[int], large: int = products.LARGE) -> products.Arithmetic:
    def product(X: np.ndarray, Y: np.ndarray, out: np.ndarray) -> None:
        calls.append(len(X))
        by_all_rows(X, Y, out)

    batched = products.slice_by_slice(product)
    return products.Arithmetic(product, batched, large, np.dtype(np.float32))


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
    made = stacks._random(np.random.default_rng(0), part, products.arithmetic("float32"))
    assert (made.shape, made.strides, made.dtype) == (part.shape, part.strides, part.dtype)
    assert abs(float(made.mean())) < 0.1 < float(made.std())


def test_matrices_are_multiplied_as_before() -> None:
    X, Y = draw((5, 7), "f4"), draw((7, 3), "f4", 1)
    out, expected = np.empty((5, 3), "f4"), np.empty((5, 3), "f4")
    arithmetic = products.arithmetic("float32")
    stacks.of_stacks(arithmetic)(X, Y, out)
    arithmetic.product(X, Y, expected)
    assert out.tobytes() == expected.tobytes()


def test_small_products_of_all_rows_find_new_arrays_at_old_addresses() -> None:
    """Views are kept for arrays, not for what comes to lie where they lay."""
    multiply = stacks.of_stacks(counted([], large=0))
    Y = draw((4, 3), "f4", 9)
    for number in range(3 * stacks.MOST_KEPT):
        X, out = draw((2, 5, 4), "f4", number), np.empty((2, 5, 3), "f4")
        multiply(X, Y, out)
        expected = np.empty_like(out)
        for k in range(2):
            np.matmul(X[k], Y, expected[k])
        assert out.tobytes() == expected.tobytes()
