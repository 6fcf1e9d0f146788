"""Products of stacks of slices, in the bits that each slice has alone.

How BLAS computes an element depends on the sizes of the product that it is a part of, so that the
rows of several slices may not simply be put into one product. Three ways lead to the same bits:

1. ``numpy.matmul`` of a stack calls BLAS once for each slice: one call in place of many; oneDNN's
   primitives are kept for a stack as for a matrix.
2. Where the right factor is the same for all slices, as weights are, one product of all their rows
   is quicker, because BLAS prepares the weights once. BLAS has the same order of additions for it
   at nearly all sizes, and at some not: it is tried out, once for each shape in use.
3. Slice by slice.
"""

import numpy as np

from distnn.nn.layout import Array
from distnn.nn.products import Arithmetic, Product

SMALL = 1 << 20
"""Multiplications of a slice's product below which the views of its rows are kept: making them, and
what oneDNN makes for them, takes as long as the product."""
TRIED = 4096  # elements, at least: of so few as a small product has, all may be equal by chance
MOST_KEPT = 64  # views: more than a pass has layers, or it begins again


def of_stacks(arithmetic: Arithmetic) -> Product:
    """A product that takes matrices (m, k) @ (k, n), stacks (s, m, k) @ (s, k, n), and stacks with
    one right factor (s, m, k) @ (k, n).

    Args:
        arithmetic: of `products`; each slice of a stack has the bits that its product gives.
    """
    product, batched, large = arithmetic.product, arithmetic.batched, arithmetic.large
    kept: dict[tuple[int, int], tuple[Array, ...]] = {}  # by the ids of what they hold
    alike: dict[tuple[object, ...], bool] = {}  # by the shape of a product: see ``rows_are_alike``

    def multiply(X: Array, Y: Array, out: Array) -> None:
        if X.ndim == 2:
            product(X, Y, out)
            return
        size = X.shape[1] * X.shape[2] * Y.shape[-1]
        if Y.ndim > 2 or size < large:
            batched(X, Y, out)
            return
        shape = (X.shape, Y.shape, Y.strides, out.strides)
        if shape not in alike:
            alike[shape] = rows_are_alike(arithmetic, X, Y, out)
        if not alike[shape]:
            batched(X, Y, out)
        elif size >= SMALL:
            product(_rows(X), Y, _rows(out))
        else:
            views = kept.get((id(X), id(out)))
            if views is None:
                if len(kept) >= MOST_KEPT:
                    kept.clear()
                views = kept[id(X), id(out)] = (_rows(X), _rows(out), X, out)
            product(views[0], Y, views[1])

    return multiply


def rows_are_alike(arithmetic: Arithmetic, X: Array, Y: Array, out: Array) -> bool:
    """Whether one product of the rows of all slices has the bits of a product for each slice.

    Tried with random numbers in arrays of these shapes, laid out as these: which instructions are
    carried out depends on nothing else, and another order of additions shows in the last bits of
    some of TRIED elements.
    """
    rng, product = np.random.default_rng(0), arithmetic.product
    whole, single = np.empty(out.shape, out.dtype), np.empty(out.shape[1:], out.dtype)
    for _ in range(0, TRIED, max(out.size, 1)):
        some, right = _random(rng, X, arithmetic), _random(rng, Y, arithmetic)
        product(_rows(some), right, _rows(whole))
        for of_slice, rows in zip(some, whole, strict=True):
            product(of_slice, right, single)
            if not np.array_equal(single, rows):
                return False
    return True


def _rows(X: Array) -> Array:
    """A stack (s, m, n) as a matrix (s m, n): a view."""
    slices, m, n = X.shape
    return X.reshape(slices * m, n, copy=False)


def _random(rng: "np.random.Generator", like: Array, arithmetic: Arithmetic) -> Array:
    """Random factors in -0.5 ... 0.5, laid out as `like`, which may be a part of a matrix."""

    def random(shape: tuple[int, ...]) -> Array:
        kind = np.float64 if like.dtype == np.float64 else np.float32
        return arithmetic.factor(rng.random(shape, kind) - kind(0.5))

    if like.ndim == 3:
        return random(like.shape)
    lead = max(like.strides) // like.itemsize
    across = like.strides[1] == like.itemsize  # a row's elements follow one another
    outer, inner = like.shape if across else like.shape[::-1]
    part = random((outer, max(lead, inner)))[:, :inner]
    return part if across else part.T
