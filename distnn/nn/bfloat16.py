"""Rounding to bfloat16: float32 with 8 bits of precision in place of 24, and the same range.

A bfloat16 number is the upper half of a float32 one: sign, 8 bits of exponent, 7 of fraction, with
unit roundoff 2**-8 (Intel, "bfloat16 Hardware Numerics Definition", 2018).
"""

import numpy as np

from distnn.nn.layout import Array

UNIT_ROUNDOFF = 2.0**-8
UPPER_HALF = np.uint32(0xFFFF0000)
LAST_BIT, BELOW_HALF = np.uint32(1), np.uint32(0x7FFF)  # of the upper half; of the lower one
LEAST_NORMAL = np.float32(2.0**-126)


def round_to_bfloat16(X: Array, out: Array) -> None:
    """Round float32 X to bfloat16 numbers in float32 ``out``, to nearest, ties to even.

    NaN stays NaN. Numbers below 2**-126, float32's least normal one, become 0, as the processors'
    own instruction has it (VCVTNEPS2BF16 in Intel's manual).
    """
    numbers, bits = X.view(np.uint32), out.view(np.uint32)
    np.right_shift(numbers, 16, bits)
    np.bitwise_and(bits, LAST_BIT, bits)  # a tie goes up from odd numbers only
    np.add(bits, BELOW_HALF, bits)
    np.add(bits, numbers, bits)
    np.bitwise_and(bits, UPPER_HALF, bits)
    with np.errstate(invalid="ignore"):
        np.multiply(out, np.abs(X) >= LEAST_NORMAL, out)
        np.copyto(out, X, where=np.isnan(X))
