"""The matrix product, whatever library computes it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn.errors import InputError
from distnn.nn import mkl, onednn, products
from distnn.nn.network import Network


def is_installed(name):
    try:
        products.chosen(name)
    except InputError:
        return False
    return True


def needs(name):
    return pytest.mark.skipif(not is_installed(name), reason=f"{name} is not installed")


OTHERS = [pytest.param(name, marks=needs(name)) for name in ("onednn", "mkl")]
BACKENDS = ["numpy", *OTHERS]


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
        products.arithmetic(out.dtype.name).product(X, Y, out)
        exact = (X.astype(int)[:, :, None] * Y.astype(int)[None]).sum(axis=1)
        assert np.array_equal(out, exact)

    check()


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.usefixtures("chosen_again")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_passes_agree_with_those_of_numpy(name, dtype):
    rng = np.random.default_rng(0)
    X, T = rng.standard_normal((33, 20)), rng.integers(0, 5, 33)
    net = Network([20, 30, 5], dtype=dtype)
    loss, gradients = net.loss_and_gradients(X, T)
    products.use(name)
    assert products.in_use().lower().startswith(name)
    other_loss, others = net.loss_and_gradients(X, T)
    tiny = float(np.finfo(dtype).eps)
    assert other_loss == pytest.approx(loss, rel=50 * tiny)
    for g, h in zip(gradients, others, strict=True):
        assert np.allclose(g, h, rtol=0, atol=20 * tiny)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.usefixtures("chosen_again")
def test_the_same_bits_wherever_the_matrices_lie(name):
    products.use(name)
    rng = np.random.default_rng(1)
    X, Y = rng.standard_normal((50, 70), "f4"), rng.standard_normal((70, 30), "f4")
    results = set()
    for shift in range(0, 16, 3):
        room = np.empty(X.size + shift, "f4")
        moved = room[shift:].reshape(X.shape)
        moved[...] = X
        out = np.empty((50, 30), "f4")
        products.arithmetic("float32").product(moved, Y, out)
        results.add(out.tobytes())
    assert len(results) == 1


def no_product(X, Y, out):
    raise AssertionError(f"a product of {X.shape} and {Y.shape} that numpy makes sooner")


@pytest.mark.parametrize("shape", [(64, 784, 1), (5000, 400, 1), (8, 26, 100), (1, 1, 1)])
def test_small_products_and_single_columns_are_numpys(shape):
    m, k, n = shape
    rng = np.random.default_rng(3)
    X, Y = rng.standard_normal((3, m, k), "f4"), rng.standard_normal((3, k, n), "f4")
    out = np.empty((3, m, n), "f4")
    products.numpy_for_small(no_product, np.matmul)(X, Y, out)
    one = np.empty((m, n), "f4")
    for number in range(3):
        products.numpy_for_small(no_product, products.by_numpy)(X[number], Y[number], one)
        assert np.array_equal(one, out[number])
        exact = X[number].astype(float) @ Y[number].astype(float)
        assert np.allclose(one, exact, rtol=0, atol=1e-6 * k)


def test_large_products_are_not():
    X, Y, out = np.ones((64, 784), "f4"), np.ones((784, 3), "f4"), np.empty((64, 3), "f4")
    with pytest.raises(AssertionError, match="sooner"):
        products.numpy_for_small(no_product, products.by_numpy)(X, Y, out)


class Processor:
    """A oneDNN on another processor."""

    def __init__(self, isa: str) -> None:
        self.has_avx512 = isa != "avx2"
        self.multiplies_bfloat16 = isa in ("bf16", "amx")
        self.has_amx = isa == "amx"


# by instructions (None: no oneDNN): what "auto" is for float32, for bfloat16
ON_INTEL = {None: ("mkl", "mkl"), "avx2": ("mkl", "mkl"), "avx512": ("onednn", "onednn"),
            "bf16": ("onednn", "mkl"), "amx": ("onednn", "onednn")}  # fmt: skip
ON_OTHERS = {None: ("numpy", "numpy"), "avx2": ("numpy", "numpy"), "avx512": ("onednn", "onednn"),
             "bf16": ("onednn", "onednn")}  # fmt: skip


@pytest.mark.parametrize(("is_intel", "table"), [(True, ON_INTEL), (False, ON_OTHERS)])
def test_auto_by_the_processor(monkeypatch, is_intel, table):
    monkeypatch.setattr(mkl, "find_library", lambda: "libmkl_rt.so.3")
    monkeypatch.setattr(products, "_is_intel", lambda: is_intel)
    for isa, expected in table.items():
        monkeypatch.setattr(onednn, "find_library", lambda isa=isa: isa and "libdnnl.so.3")
        monkeypatch.setattr(onednn, "shared", lambda isa=isa: Processor(isa))
        chosen = tuple(products.chosen("auto", one) for one in ("float32", "bfloat16"))
        assert chosen == expected, isa
        assert products.chosen("auto", "float64") == ("mkl" if is_intel else "numpy")
        assert products.chosen("numpy", "bfloat16") == "numpy"
    monkeypatch.setattr(mkl, "find_library", lambda: None)
    monkeypatch.setattr(onednn, "find_library", lambda: None)
    assert products.chosen("auto") == "numpy"


def test_mkl_that_is_not_there(monkeypatch):
    monkeypatch.setattr(mkl, "find_library", lambda: None)
    mkl.shared.cache_clear()
    with pytest.raises(InputError, match=r"--blas: MKL is not installed; pip install"):
        products.chosen("mkl")
    with pytest.raises(InputError, match="not installed"):
        products.use("mkl")
