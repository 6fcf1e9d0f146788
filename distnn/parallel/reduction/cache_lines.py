"""What ranks of a node write by turns: cache lines are handed over, not shared.

A store to a line of which another core holds a copy, too, waits until that copy is given up, and
little of that waiting overlaps; where cores share no cache it takes more time than the arithmetic.
A line that one core alone holds is handed over to the next quickly. So whoever reads what another
rank wrote, and will write again, takes the line over by a store before; and weights that are small
enough for a copy per rank travel back in the lines in which the gradients came.
"""

import numpy as np

LINE = 64  # bytes
CACHE = 1 << 20  # bytes of a core's own cache: larger weights are not copied


def lines_of(vector: np.ndarray) -> np.ndarray:
    """One element of each cache line of a vector that starts on a line."""
    return vector[:: LINE // vector.itemsize]


def claim(lines: np.ndarray) -> None:
    """Store to each line what is there already. Nobody else may write there at the time."""
    np.positive(lines, lines)


def copy(source: np.ndarray, target: np.ndarray) -> None:
    """Hand values over."""
    np.copyto(target, source)
