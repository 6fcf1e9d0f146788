"""oneDNN by its C interface: products and what is kept of them."""

import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn.errors import InputError
from distnn.nn import onednn


@pytest.fixture(scope="module")
def library():
    try:
        return onednn.OneDnn()
    except InputError as error:
        pytest.skip(str(error))


def bfloat16(library, X):
    rounded = np.empty(X.shape, np.uint16)
    library.round(X, rounded)
    return rounded


def test_products_of_bfloat16_factors(library):
    @given(sizes=st.tuples(*[st.integers(1, 70)] * 3), transposed=st.tuples(*[st.booleans()] * 2))
    def check(sizes, transposed):
        m, k, n = sizes
        rng = np.random.default_rng(m * 4900 + k * 70 + n)
        X, Y = (rng.integers(-8, 9, size).astype("f4") for size in ((m, k), (k, n)))
        x, y = (
            bfloat16(library, np.asfortranarray(Z).T.copy()).T if flip else bfloat16(library, Z)
            for Z, flip in zip((X, Y), transposed, strict=True)
        )
        room = np.full((m, n + 1), np.nan, "f4")
        library.product(x, y, room[:, 1:])
        assert np.array_equal(room[:, 1:], X.astype("i8") @ Y.astype("i8"))  # exact in both
        assert np.isnan(room[:, 0]).all()

    check()


def test_a_product_is_a_float32_sum_of_exact_products(library):
    rng = np.random.default_rng(0)
    k = 785
    X, Y = rng.standard_normal((30, k), "f4"), rng.standard_normal((k, 20), "f4")
    x, y = bfloat16(library, X), bfloat16(library, Y)
    out = np.empty((30, 20), "f4")
    library.product(x, y, out)
    wide = [(one.astype("u4") << 16).view("f4").astype("f8") for one in (x, y)]
    exact, size = wide[0] @ wide[1], abs(wide[0]) @ abs(wide[1])
    assert (abs(out - exact) <= k * 2.0**-24 / (1 - k * 2.0**-24) * size).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_stack_has_the_bits_of_its_matrices(library, precision):
    rng = np.random.default_rng(2)
    X, D = rng.standard_normal((3, 17, 40), "f4"), rng.standard_normal((3, 17, 9), "f4")
    Y = rng.standard_normal((40, 9), "f4")
    if precision == "bfloat16":
        X, D, Y = (bfloat16(library, one) for one in (X, D, Y))
    outs, gradients = np.empty((3, 17, 9), "f4"), np.empty((3, 40, 9), "f4")
    library.product(X, Y, outs)
    library.product(X.mT, D, gradients)
    for i in range(3):
        out, gradient = np.empty((17, 9), "f4"), np.empty((40, 9), "f4")
        library.product(X[i], Y, out)
        library.product(X[i].T, D[i], gradient)
        assert np.array_equal(out, outs[i])
        assert np.array_equal(gradient, gradients[i])


def test_no_rows_give_zeros(library):
    out = np.full((5, 4), np.nan, "f4")
    library.product(np.empty((5, 0), "f4"), np.empty((0, 4), "f4"), out)
    assert not out.any()
    library.product(np.empty((0, 5), "f4"), np.empty((5, 4), "f4"), np.empty((0, 4), "f4"))
    library.round(np.empty((0, 4), "f4"), np.empty((0, 4), "u2"))


def test_what_is_kept_for_arrays_ends_with_them(library):
    gc.collect()
    before = len(library._calls)
    X, Y, out = np.ones((3, 4), "f4"), np.ones((4, 5), "f4"), np.empty((3, 5), "f4")
    for _ in range(3):
        library.product(X, Y, out)
    assert len(library._calls) == before + 1
    for _ in range(100):  # arrays made anew are found at the addresses of those before
        library.product(X[:2], Y, out[:2])
    assert len(library._calls) == before + 1
    X, out = np.full((3, 4), 2.0, "f4"), np.empty((3, 5), "f4")
    library.product(X, Y, out)
    assert (out == 8).all()
    del X, Y, out
    assert len(library._calls) == before


def test_primitives_beyond_the_limit_are_made_again(library, monkeypatch):
    monkeypatch.setattr(onednn, "MOST_PRIMITIVES", 4)
    for rows in (*range(1, 12), 1, 2, 3):
        out = np.empty((rows, 2), "f4")
        library.product(np.ones((rows, 3), "f4"), np.ones((3, 2), "f4"), out)
        assert (out == 3).all()
        assert len(library._compiled) <= 4


def test_the_name_says_version_and_instructions(library):
    name, version, _instructions = library.name.split()
    assert (name, version.split(".")[0]) == ("oneDNN", "3")


def test_a_library_that_is_not_there_or_too_old(monkeypatch):
    monkeypatch.setattr(onednn, "find_library", lambda: None)
    monkeypatch.setattr(onednn, "PACKAGES", ("no-such-package",))
    monkeypatch.setattr(onednn, "FILES", ("no-such-library.so",))
    with pytest.raises(InputError, match=r"--blas: oneDNN is not installed; pip install 'distnn\["):
        onednn.load_library()


def test_a_file_that_is_none_is_named(monkeypatch, tmp_path):
    broken = tmp_path / "libdnnl.so.3"
    broken.write_bytes(b"no library")
    monkeypatch.setattr(onednn, "find_library", lambda: broken)
    monkeypatch.setattr(onednn, "PACKAGES", ())
    monkeypatch.setattr(onednn, "FILES", ())
    with pytest.raises(InputError, match=r"oneDNN cannot be loaded: .*libdnnl\.so\.3"):
        onednn.load_library()


def test_another_version_is_refused(library, monkeypatch):
    monkeypatch.setattr(onednn, "MAJOR", 4)
    with pytest.raises(InputError, match=r"oneDNN 3 found, 4 is needed"):
        onednn.load_library()
