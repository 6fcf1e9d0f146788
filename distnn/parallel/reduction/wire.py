"""In which numbers gradients travel between machines, and how they are added up in them.

In bfloat16, r being the nearest number, of two the even one, the gradient of a batch is T(0, S):

    T(a, b) = r(g_a)                          if b - a = 1
    T(a, b) = r(T(a, a + m) + T(a + m, b))    m as in `tree`

Each sum is rounded, wherever it is made, so that the result depends on the slices alone, and two
bytes an element travel. A bfloat16 number is the upper half of a float32 one. In the vectors of a
node it stands as float32, and packed, as uint16, in messages.

To multiply, processors and `nn.bfloat16` take numbers below 2**-126 for 0; here they keep what
bfloat16 has of them.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike

CHUNK = 32_768  # elements: they stay in a core's cache through the passes that rounding takes
HALF = np.uint32(16)  # bits
LAST_BIT, BELOW_HALF = np.uint32(1), np.uint32(0x7FFF)  # of the upper half; of the lower one
UPPER_HALF, NAN = np.uint32(0xFFFF0000), np.uint32(0x7FC00000)


class Wire(Protocol):
    """Additions of vectors, and their way into messages and out; used by one thread at a time."""

    dtype: np.dtype
    """Of an element in a message."""

    def round(self, vector: np.ndarray) -> None:
        """A slice's gradient as it is added up, in place."""

    def add(self, left: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
        """out = left + right; any of them may be in a message."""

    def copy(self, source: np.ndarray, target: np.ndarray) -> None:
        """target = source; either may be in a message."""


class Exact:
    """Gradients travel as they are.

    Args:
        dtype: of the vectors.
    """

    def __init__(self, dtype: DTypeLike) -> None:
        self.dtype = np.dtype(dtype)

    def round(self, vector: np.ndarray) -> None:
        """See `Wire.round`."""

    def add(self, left: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
        """See `Wire.add`."""
        np.add(left, right, out)

    def copy(self, source: np.ndarray, target: np.ndarray) -> None:
        """See `Wire.copy`."""
        np.copyto(target, source)


class Bfloat16:
    """Gradients and each of their sums are rounded to bfloat16: float32 vectors, uint16 messages.

    What overflows becomes infinite, and NaN stays NaN (0x7FC0).
    """

    dtype = np.dtype(np.uint16)

    def __init__(self) -> None:
        self._odd = np.empty(CHUNK, np.uint32)
        self._terms = [np.empty(CHUNK, np.uint32) for _ in range(2)]

    def round(self, vector: np.ndarray) -> None:
        """See `Wire.round`."""
        for (part,) in _chunks(vector):
            lost = None
            if np.isnan(np.maximum.reduce(part, None)):
                lost = np.isnan(part)  # the additions below make some of them infinite or 0
            self._round(part)
            if lost is not None:
                part.view(np.uint32)[lost] = NAN

    def add(self, left: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
        """See `Wire.add`; the terms are rounded."""
        first, second = self._terms
        for a, b, total in _chunks(left, right, out):
            target = total if total.dtype == np.float32 else _part(first, total).view(np.float32)
            np.add(_unpacked(a, first), _unpacked(b, second), target)
            self._round(target)
            if target is not total:
                self._pack(target, total)

    def copy(self, source: np.ndarray, target: np.ndarray) -> None:
        """See `Wire.copy`; vectors hold bfloat16 numbers already."""
        if source.dtype == target.dtype:
            np.copyto(target, source)
            return
        for a, b in _chunks(source, target):
            if b.dtype == np.uint16:
                self._pack(a, b)
            else:
                _unpack(a, b.view(np.uint32))

    def _round(self, numbers: np.ndarray) -> None:
        bits, odd = numbers.view(np.uint32), _part(self._odd, numbers)
        np.right_shift(bits, HALF, odd)
        np.bitwise_and(odd, LAST_BIT, odd)  # a tie goes up from odd numbers only
        np.add(odd, BELOW_HALF, odd)
        np.add(bits, odd, bits)
        np.bitwise_and(bits, UPPER_HALF, bits)

    def _pack(self, numbers: np.ndarray, message: np.ndarray) -> None:
        upper = _part(self._odd, numbers)
        np.right_shift(numbers.view(np.uint32), HALF, upper)
        np.copyto(message, upper, casting="unsafe")


def make_wire(name: str, dtype: DTypeLike) -> Wire:
    """The wire of a name.

    Args:
        name: "float32": as they are; or "bfloat16".
        dtype: of the vectors; float32 with "bfloat16".
    """
    if name == "bfloat16":
        assert np.dtype(dtype) == np.float32
        return Bfloat16()
    return Exact(dtype)


def _part(buffer: np.ndarray, like: np.ndarray) -> np.ndarray:
    return buffer[: like.size].reshape(like.shape)


def _unpacked(numbers: np.ndarray, buffer: np.ndarray) -> np.ndarray:
    """Numbers as float32; those of a message are unpacked into the buffer."""
    if numbers.dtype == np.float32:
        return numbers
    bits = _part(buffer, numbers)
    _unpack(numbers, bits)
    return bits.view(np.float32)


def _unpack(message: np.ndarray, bits: np.ndarray) -> None:
    np.copyto(bits, message)
    np.left_shift(bits, HALF, bits)


def _chunks(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Vectors, or matrices, of one shape in parts of at most CHUNK elements: views."""
    size = arrays[0].size
    if arrays[0].ndim == 1 or all(array.flags.c_contiguous for array in arrays):
        flat = [array.reshape(-1) for array in arrays]
        for lo in range(0, size, CHUNK):
            yield tuple(array[lo : lo + CHUNK] for array in flat)
    elif size:
        height, width = arrays[0].shape
        across = min(width, CHUNK)
        down = CHUNK // across
        for top in range(0, height, down):
            for left in range(0, width, across):
                yield tuple(a[top : top + down, left : left + across] for a in arrays)
