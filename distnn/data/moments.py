"""Moments of columns in one pass over blocks of rows, where the rows are not in memory."""

import numpy as np
import numpy.typing as npt

from distnn.data.rows import Array
from distnn.data.scaling import Scaling


class Moments:
    """Mean, deviation, least and largest value of k columns, in float64.

    Blocks are combined as Chan, Golub and LeVeque (1979, "Updating formulae and a pairwise
    algorithm for computing sample variances") do it; powers of two keep the squares of large
    numbers from overflowing, as in `Scaling.standardise`. The bits depend on the blocks, which are
    those of the file.
    """

    def __init__(self, k: int) -> None:
        self._n = 0
        self._low, self._high = np.full(k, np.inf), np.full(k, -np.inf)
        self._exponent = np.full(k, -1000)  # of the unit in which the two below are
        self._mean, self._squares = np.zeros(k), np.zeros(k)

    def add(self, Y: Array) -> None:
        """Some rows (b, k), finite."""
        low, high = Y.min(axis=0), Y.max(axis=0)
        np.minimum(self._low, low, out=self._low)
        np.maximum(self._high, high, out=self._high)
        largest = np.maximum(np.abs(low), np.abs(high)).astype(np.float64)
        exponent = np.maximum(self._exponent, np.frexp(largest)[1].clip(-1000, 1000))
        smaller = np.ldexp(1.0, self._exponent - exponent)
        mean, squares = self._mean * smaller, self._squares * smaller**2
        block = Y * np.ldexp(1.0, -exponent)  # (b, k) float64
        own = block.mean(axis=0)
        block -= own
        own_squares = np.einsum("ij,ij->j", block, block)
        n, b = self._n, len(Y)
        step = own - mean
        self._mean = mean + step * (b / (n + b))
        self._squares = squares + own_squares + step**2 * (n * (b / (n + b)))
        self._n, self._exponent = n + b, exponent

    def scaling(self, dtype: npt.DTypeLike) -> Scaling:
        """Mean 0 and standard deviation 1, see `Scaling.standardise`; `dtype`: what is scaled."""
        unit = np.ldexp(1.0, -self._exponent)
        is_constant = self._low == self._high
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            scale = unit / np.sqrt(self._squares / self._n)
            usable = ~is_constant & np.isfinite(scale) & (scale <= np.finfo(np.dtype(dtype)).max)
        shift = np.where(is_constant, self._low, self._mean / unit)
        return Scaling(shift, np.where(usable, scale, 1.0))

    def feature_scaling(
        self,
        source: npt.DTypeLike,
        dtype: npt.DTypeLike,
        is_scaled: npt.NDArray[np.bool_] | None = None,
    ) -> Scaling:
        """The scaling of features; arguments as of `Scaling.measure`."""
        if is_scaled is None and np.dtype(source).kind in "biu":
            k = len(self._low)
            largest = float(np.maximum(np.abs(self._low), np.abs(self._high)).max())
            return Scaling(np.zeros(k), np.full(k, 1.0 / largest if largest > 0 else 1.0))
        found = self.scaling(dtype)
        if is_scaled is None:
            return found
        return Scaling(np.where(is_scaled, found.shift, 0.0), np.where(is_scaled, found.scale, 1.0))
