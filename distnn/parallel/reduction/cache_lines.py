"""Cache lines that ranks of a node write by turns.

A store to a line of which another core holds a copy waits until that copy is invalidated, and
little of that waiting overlaps. Where cores share no cache it takes longer than the arithmetic:
`w -= g` on 102,000 weights took 55 instead of 13 microseconds after another rank had read w, and 18
where that rank had stored to each line first (`mpirun -n 2 python tests/benchmarks/lines.py`, two
cores of a virtual machine). So whoever reads what another rank wrote, and will write again, first
takes the lines by a store; and weights small enough for a copy per rank come back in the lines in
which the gradients went. For 784-128-10 with batch 64 on 2 ranks a step went from 376 to 332
microseconds with both (`tests/benchmarks/compare.py`).
"""

from collections.abc import Sequence

import numpy as np

LINE = 64  # bytes
CACHE = 1 << 20  # bytes of a core's own cache: larger weights are not copied


def lines_of(vector: np.ndarray) -> np.ndarray:
    """One element of each cache line of a vector that starts on a line."""
    return vector[:: LINE // vector.itemsize]


def take(lines: np.ndarray) -> None:
    """Store to each line what is there already. Nobody else may write there at the time."""
    np.positive(lines, lines)


class CacheLines:
    """What one rank does about cache lines in a step; nothing, unless it is given something to do.

    Args:
        own: this rank's part of the shared weights, which others have read.
        gradients: the other ranks' gradient vectors, which this rank adds up.
        outboxes: the other ranks' gradient vectors in which they get the new weights of this
            rank's part, where each rank has a copy of the weights.
        inbox, copy: where this rank gets the other parts' new weights, and its copy of the weights
            there: pairs of vectors of equal length.
    """

    def __init__(
        self,
        own: np.ndarray | None = None,
        gradients: Sequence[np.ndarray] = (),
        outboxes: Sequence[np.ndarray] = (),
        inbox: Sequence[tuple[np.ndarray, np.ndarray]] = (),
    ) -> None:
        self._own = None if own is None else lines_of(own)
        self._gradients, self._outboxes = gradients, outboxes
        self._inbox = [(lines_of(new), new, weights) for new, weights in inbox]

    def take_weights(self) -> None:
        """Before this rank waits to update them."""
        if self._own is not None:
            take(self._own)

    def gradient_lines(self, lo: int, hi: int) -> list[np.ndarray]:
        """The lines of the other ranks' gradients lo … hi, to be taken before they are added up."""
        return [lines_of(vector[lo:hi]) for vector in self._gradients]

    def outgoing(self, lo: int, hi: int) -> list[np.ndarray]:
        """Where the new weights lo … hi are to be copied for the other ranks."""
        return [vector[lo:hi] for vector in self._outboxes]

    def receive_weights(self) -> None:
        """The other parts' new weights into this rank's copy, once all are there."""
        for lines, new, weights in self._inbox:
            take(lines)
            np.copyto(weights, new)
