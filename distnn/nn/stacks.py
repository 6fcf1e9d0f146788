"""Products of stacks of slices, in the bits that each slice has alone.

How BLAS computes an element depends on the sizes of the product that it is a part of, so that the
rows of several slices may not simply be put into one product. Three ways lead to the same bits:

1. ``numpy.matmul`` of a stack calls BLAS once for each slice: one call in place of many.
2. Where the right factor is the same for all slices, as weights are, one product of all their rows
   is quicker, because BLAS prepares the weights once. BLAS has the same order of additions for it
   at nearly all sizes, and at some not: it is tried out, once for each shape in use.
3. Slice by slice.
"""

from collections.abc import Callable

import numpy as np

from distnn.nn import products
from distnn.nn.layout import Array
from distnn.nn.products import Product

LARGE = 1 << 20
"""Multiplications of a slice's product from which one product of all rows is quicker. Below it
OpenBLAS has kernels for small products, which do not prepare anything, and other bits."""


def of_stacks(product: Product) -> Product:
    """A product that takes matrices (m, k) @ (k, n), stacks (s, m, k) @ (s, k, n), and stacks with
    one right factor (s, m, k) @ (k, n).

    Args:
        product: that of `products`; each slice of a stack has the bits that it gives.
    """
    batched = np.matmul if product is products.by_numpy else _one_by_one(product)
    alike: dict[tuple[object, ...], bool] = {}  # by the shape of a product: see ``rows_are_alike``

    def multiply(X: Array, Y: Array, out: Array) -> None:
        if X.ndim == 2:
            product(X, Y, out)
        elif Y.ndim > 2 or X[0].size * Y.shape[1] < LARGE:
            batched(X, Y, out)
        else:
            shape = (X.shape, Y.shape, Y.strides, out.strides)
            if shape not in alike:
                alike[shape] = rows_are_alike(product, X, Y, out)
            if alike[shape]:
                product(_rows(X), Y, _rows(out))
            else:
                batched(X, Y, out)

    return multiply


def rows_are_alike(product: Product, X: Array, Y: Array, out: Array) -> bool:
    """Whether one product of the rows of all slices has the bits of a product for each slice.

    Tried with random numbers in arrays of these shapes, laid out as these: which instructions are
    carried out depends on nothing else, and another order of additions shows in the last bits of
    some of so many elements.
    """
    rng = np.random.default_rng(0)
    X, Y = _random(rng, X), _random(rng, Y)
    whole, single = np.empty_like(X, shape=out.shape), np.empty_like(X, shape=out.shape[1:])
    product(_rows(X), Y, _rows(whole))
    for of_slice, rows in zip(X, whole, strict=True):
        product(of_slice, Y, single)
        if not np.array_equal(single, rows):
            return False
    return True


def _rows(X: Array) -> Array:
    """A stack (s, m, n) as a matrix (s m, n): a view."""
    slices, m, n = X.shape
    return X.reshape(slices * m, n, copy=False)


def _random(rng: "np.random.Generator", like: Array) -> Array:
    """Random numbers in -0.5 ... 0.5, laid out as `like`, which may be a part of a matrix."""
    lead = max(like.strides) // like.itemsize
    if like.ndim == 3:
        return rng.random(like.shape, like.dtype.type) - like.dtype.type(0.5)
    across = like.strides[1] == like.itemsize  # a row's elements follow one another
    outer, inner = like.shape if across else like.shape[::-1]
    whole = rng.random((outer, max(lead, inner)), like.dtype.type) - like.dtype.type(0.5)
    part = whole[:, :inner]
    return part if across else part.T


def _one_by_one(product: Product) -> Callable[[Array, Array, Array], None]:
    def batched(X: Array, Y: Array, out: Array) -> None:
        for number, of_slice in enumerate(X):
            product(of_slice, Y if Y.ndim == 2 else Y[number], out[number])

    return batched
