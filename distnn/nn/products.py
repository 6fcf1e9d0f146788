"""The matrix product of all passes: numpy's BLAS, or oneDNN or MKL where installed and chosen.

One process uses one of them at a time, as it has one number of BLAS threads; all ranks of a run
must use the same, or their products differ in the last bits.

"auto" is the quickest by these measurements: microseconds for all products of a step on one core
of a Xeon of 2023 with AVX-512 and without AMX, by OpenBLAS 0.3.31, oneDNN 3.2 and MKL 2026.2;
``env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python tests/benchmarks/products.py 2`` (8 in the
last three rows).

    network, rows                    numpy    onednn       mkl   onednn in bfloat16
    784-30-10, 16                       23        24        67        33
    784-30-10, 64                       91        64       151        96
    784-128-10, 64                     203       165       218       285
    784-512-512-10, 64                1647      1705      1652      2445
    784-512-512-10, 256               6159      5770      6004      9546
    784-2048-2048-10, 64             21070     19964     18329     26604
    784-2048-2048-10, 256            58299     57275     53612     96092
    784-2048-2048-10, 1024          200605    220975    198709    379545

Where oneDNN is installed and finds AVX-512, it is taken, small products excepted (see
`numpy_for_small`): it is the quickest but for layers of thousands with hundreds of rows, where MKL,
on Intel's processors, is quicker by up to a tenth. MKL alone is taken on Intel's processors only:
on others it runs at half its speed.

Products of bfloat16 factors are a matter of the processor. AMX, or AVX512-BF16 on AMD's
processors, is made for them (neither was measured here); AVX512-BF16 on Intel's without AMX
(or in a virtual machine that hides it) takes up to twice as long as float32: "auto" makes float32
products of the rounded factors there, as it does where oneDNN is missing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distnn.nn import mkl, onednn
from distnn.nn.bfloat16 import round_to_bfloat16
from distnn.nn.layout import Array

Product = Callable[[Array, Array, Array], object]
Rounding = Callable[[Array, Array], object]

BFLOAT16 = "bfloat16"
SMALL = 8192  # elements; see ``by_numpy``
FEW = 1 << 17  # multiplications; see ``numpy_for_small``
LARGE = 1 << 20  # multiplications; below it OpenBLAS has other kernels, whose bits differ


@dataclass(frozen=True)
class Arithmetic:
    """How a pass makes its products.

    Attributes:
        product: ``product(X, Y, out)``: out = X @ Y.
        batched: the same of stacks (s, m, k) and (s, k, n), or (k, n) for all, each slice in the
            bits of ``product``.
        large: multiplications of a slice's product from which one product of the rows of all slices
            is worth a trial, see `stacks`.
        dtype: of the factors X and Y in memory.
        round: ``round(X, out)`` makes factors of the network's numbers; None: they are factors.
    """

    product: Product
    batched: Product
    large: int
    dtype: np.dtype
    round: Rounding | None = None

    def factor(self, X: Array) -> Array:
        """X as a factor: X itself, or rounded in an array of its own."""
        if self.round is None:
            return X
        rounded = np.empty(X.shape, self.dtype)
        self.round(X, rounded)
        return rounded


def by_numpy(X: Array, Y: Array, out: Array) -> None:
    """out = X @ Y. dot has the smaller overhead of numpy's two, but sets ``out`` to 0 first, and
    refuses columns of a larger matrix."""
    if out.size < SMALL:
        try:
            X.dot(Y, out)
        except ValueError:
            np.matmul(X, Y, out)
    else:
        np.matmul(X, Y, out)


_library = "numpy"  # in use; rebound by ``use``


def use(name: str) -> None:
    """Make all products by "numpy", "onednn" or "mkl" in this process from now on.

    Raises:
        InputError: it is not installed.
    """
    global _library
    if name == "onednn":
        onednn.shared()
    if name == "mkl":
        mkl.shared()
    _library = name


def arithmetic(precision: str) -> Arithmetic:
    """The products of "float32", "float64" or "bfloat16", by what is in use.

    bfloat16 factors are multiplied as they are where `multiplies_bfloat16`; else they stand in
    float32 and so do their products. Both are float32 sums of exact products, but in another
    order: their bits differ. float64 products are not among oneDNN's: numpy makes them.
    """
    if precision == BFLOAT16 and multiplies_bfloat16():
        library = onednn.shared()
        return Arithmetic(library.product, library.product, 0, np.dtype(np.uint16), library.round)
    product: Product = by_numpy
    batched: Product = np.matmul
    large = LARGE
    if _library == "mkl":
        product = mkl.shared().product
        batched = slice_by_slice(product)
    elif _library == "onednn" and precision != "float64":
        by_onednn = onednn.shared().product
        product = numpy_for_small(by_onednn, by_numpy)
        batched = numpy_for_small(by_onednn, np.matmul)
        large = FEW
    if precision == BFLOAT16:
        return Arithmetic(product, batched, large, np.dtype(np.float32), round_to_bfloat16)
    return Arithmetic(product, batched, large, np.dtype(precision))


def multiplies_bfloat16() -> bool:
    """Whether what is in use has the processor's instructions for products of bfloat16 numbers."""
    return _library == "onednn" and onednn.shared().multiplies_bfloat16


def chosen(name: str, precision: str = "float32") -> str:
    """The library that "auto", "numpy", "onednn" or "mkl" means on this machine.

    Raises:
        InputError: one is asked for that is not installed.
    """
    if name == "onednn":
        onednn.shared()
    if name == "mkl":
        mkl.shared()
    if name != "auto":
        return name
    if precision != "float64" and onednn.find_library() and _is_quick(onednn.shared(), precision):
        return "onednn"
    return "mkl" if mkl.find_library() and _is_intel() else "numpy"


def in_use() -> str:
    """What makes the products: "numpy", or oneDNN or MKL with what their bits depend on."""
    if _library == "onednn":
        return onednn.shared().name
    return mkl.shared().version if _library == "mkl" else "numpy"


def slow_precision_message(precision: str) -> str:
    """One line where bfloat16 is asked for and is no quicker than float32, else nothing."""
    if precision != BFLOAT16:
        return ""
    if multiplies_bfloat16():
        quick = _is_quick(onednn.shared(), BFLOAT16)
        return "" if quick else f"bfloat16 products by {in_use()} take longer than float32's here"
    return (
        f"bfloat16: factors are rounded, their products made in float32 by {in_use()}: the "
        "accuracy of bfloat16 without its speed; products of bfloat16 itself take --blas onednn "
        "and a processor with AMX or AVX512-BF16, and have other bits"
    )


def slice_by_slice(product: Product) -> Product:
    """The product of stacks by as many products."""

    def batched(X: Array, Y: Array, out: Array) -> None:
        for number, of_slice in enumerate(X):
            product(of_slice, Y if Y.ndim == 2 else Y[number], out[number])

    return batched


def numpy_for_small(product: Product, numpy_product: Product) -> Product:
    """The product by oneDNN, but by numpy where the call takes longer than the multiplications, and
    where the result is a single column, as of a network with one output: oneDNN 3.2 computes it
    without vector instructions, in up to 200 times numpy's time.

    The shape of one slice decides, so that a stack of slices has the bits of each one alone.
    """

    def either(X: Array, Y: Array, out: Array) -> None:
        m, n = out.shape[-2:]
        if n == 1 or m * n * X.shape[-1] < FEW:
            numpy_product(X, Y, out)
        else:
            product(X, Y, out)

    return either


def _is_quick(library: onednn.OneDnn, precision: str) -> bool:
    """Whether oneDNN is the quickest on this processor, by what is said above."""
    if precision == BFLOAT16 and library.has_amx:
        return True
    if precision == BFLOAT16 and library.multiplies_bfloat16:
        return not _is_intel()
    return library.has_avx512


def _is_intel() -> bool:
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return False
