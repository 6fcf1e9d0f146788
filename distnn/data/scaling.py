"""Scaling of features and of real targets by the moments of the training set."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from distnn.data.rows import Array
from distnn.errors import InputError

# Values per block of the moments and of the scaling. The sums follow these blocks, whose size
# depends on nothing but the number of columns: the same data give the same bits everywhere.
BLOCK_VALUES = 1 << 17


@dataclass(frozen=True)
class Scaling:
    """x' = (x - shift) * scale for each column.

    The arithmetic is done in the type of the array that is scaled, with shift and scale rounded
    to that type first, so that a value gets the same bits in training, evaluation and prediction.

    Attributes:
        shift: (k,) float64.
        scale: (k,) float64, finite and positive.
    """

    shift: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]

    @classmethod
    def none(cls, features: int) -> Self:
        """The scaling that leaves everything as it is."""
        return cls(np.zeros(features), np.ones(features))

    @classmethod
    def measure(
        cls, X: Array, source: npt.DTypeLike, is_scaled: npt.NDArray[np.bool_] | None = None
    ) -> Self:
        """The scaling of features.

        Args:
            X: (n, 1 + n0) float, as ``fill`` leaves it; column 0 is not looked at.
            source: type of the numbers in the file. Integers (pixels) are divided by their
                largest magnitude, one number for all features; real features are standardised.
            is_scaled: (n0,), which features are; None: all. The 0 and 1 of a category stay.
        """
        if is_scaled is not None and not is_scaled.all():
            found = cls.standardise(X[:, 1:])
            return cls(np.where(is_scaled, found.shift, 0.0), np.where(is_scaled, found.scale, 1.0))
        if np.dtype(source).kind not in "biu":
            return cls.standardise(X[:, 1:])
        largest = max((float(np.abs(block).max()) for block in _blocks(X[:, 1:])), default=0.0)
        k = X.shape[1] - 1
        return cls(np.zeros(k), np.full(k, 1.0 / largest if largest > 0 else 1.0))

    @classmethod
    def standardise(cls, Y: Array) -> Self:
        """Mean 0 and standard deviation 1 for each column of ``Y`` (n, k).

        Moments in two passes in float64. A constant column is shifted to 0 and not scaled.
        """
        n, k = Y.shape
        low, high = np.full(k, np.inf), np.full(k, -np.inf)
        for block in _blocks(Y):
            np.minimum(low, block.min(axis=0), out=low)
            np.maximum(high, block.max(axis=0), out=high)
        # Powers of two bring each column near 1, without rounding, so that no square overflows.
        exponent = np.frexp(np.maximum(np.abs(low), np.abs(high)))[1]  # (k,)
        unit = np.ldexp(1.0, -exponent.clip(-1000, 1000))
        mean = sum((block * unit).sum(axis=0) for block in _blocks(Y)) / n
        squares = sum(np.square(block * unit - mean).sum(axis=0) for block in _blocks(Y))
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            scale = unit / np.sqrt(squares / n)
            usable = (low < high) & np.isfinite(scale) & (scale <= np.finfo(Y.dtype).max)
        shift = np.where(low < high, mean / unit, low)
        return cls(shift, np.where(usable, scale, 1.0))

    def apply(self, X: Array) -> None:
        """Scale the features of ``X`` (n, 1 + n0) in place; column 0 stays as it is.

        Raises:
            InputError: a scaled value is beyond the range of X's type.
        """
        self.apply_targets(X[:, 1:])

    def apply_targets(self, Y: Array) -> None:
        """Scale every column of ``Y`` (n, k) in place."""
        shift, scale = self.shift.astype(Y.dtype), self.scale.astype(Y.dtype)
        shifted = bool(np.any(shift != 0))
        try:
            with np.errstate(over="raise", under="ignore"):
                for block in _blocks(Y):
                    if shifted:
                        np.subtract(block, shift, out=block)
                    np.multiply(block, scale, out=block)
        except FloatingPointError as error:
            raise InputError(
                f"a value, scaled by the training set's moments, is beyond the range of {Y.dtype}",
                where="data",
                remedy="check the data for outliers or use --precision float64",
            ) from error

    def undo(self, Y: Array) -> None:
        """The inverse of ``apply_targets``, in place."""
        shift, scale = self.shift.astype(Y.dtype), self.scale.astype(Y.dtype)
        for block in _blocks(Y):
            np.divide(block, scale, out=block)
            np.add(block, shift, out=block)

    def arrays(self) -> dict[str, npt.NDArray[np.float64]]:
        """What a checkpoint keeps."""
        return {"shift": self.shift, "scale": self.scale}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Self:
        """The inverse of ``arrays``; InputError if they are no scaling."""
        shift, scale = (np.array(arrays[key], np.float64) for key in ("shift", "scale"))
        sound = shift.ndim == 1 and shift.shape == scale.shape and np.isfinite(shift).all()
        if not (sound and np.isfinite(scale).all() and (scale > 0).all()):
            raise InputError("shift and scale are damaged", where="scaling")
        return cls(shift, scale)


LOG = "log"


@dataclass(frozen=True)
class Units:
    """How real targets became what a network is trained on, and the way back.

    Attributes:
        scaling: by the moments of the training set; None: not scaled.
        transform: "log": the natural logarithm was taken before; or None.
    """

    scaling: Scaling | None = None
    transform: str | None = None

    @property
    def are_linear(self) -> bool:
        """Whether R2 is the same in both units."""
        return self.transform is None

    def undo(self, A: Array) -> None:
        """Outputs or scaled targets (n, k) as values in the targets' own unit, in place."""
        if self.scaling is not None:
            self.scaling.undo(A)
        if self.transform == LOG:
            with np.errstate(over="ignore"):
                np.exp(A, out=A)

    def own(self, Y: Array) -> Array:
        """Outputs or targets (n, k) in the targets' own unit, float64; Y stays as it is."""
        own = Y.astype(np.float64)
        self.undo(own)
        return own

    def to_json(self) -> dict[str, Any]:
        """For the other ranks."""
        arrays = {} if self.scaling is None else self.scaling.arrays()
        return {
            "transform": self.transform,
            "scaling": {key: array.tolist() for key, array in arrays.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        scaling = Scaling.from_arrays(value["scaling"]) if value["scaling"] else None
        return cls(scaling, value["transform"])


def log_of_targets(Y: Array, where: str) -> Array:
    """The natural logarithm of targets (n, k); InputError where one is not positive."""
    if not (Y > 0).all():
        row = int((Y <= 0).any(axis=1).argmax())
        value = Y[row][Y[row] <= 0][0]
        what = f"{value:g} has no logarithm"
        remedy = "leave --target-transform log out, or give positive targets"
        raise InputError(what, f"{where}, row {row} (counted from 0)", remedy)
    return np.log(Y)


def _blocks(Y: Array) -> Iterator[Array]:
    step = max(1, BLOCK_VALUES // max(1, Y.shape[1]))
    for start in range(0, len(Y), step):
        yield Y[start : start + step]
