"""Sums of the slices' losses, in the order of the tree."""

import numpy as np
from numpy.typing import NDArray

from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.reduction import tree
from distnn.parallel.reduction.ownership import Ownership

STEPS = 256  # steps whose losses are kept before they are summed: one small message for all


class LossSums:
    """Collects the loss sum of each of this rank's slices, step by step.

    Losses are only looked at from time to time, so that no message is sent for them in a step;
    each step has its own loss all the same.
    """

    def __init__(self, comm: Communicator, ownership: Ownership) -> None:
        self.comm = comm
        self._runs = [ownership.run(rank) for rank in range(comm.size)]
        self._slices = ownership.slices
        self._first, last = self._runs[comm.rank]
        self._losses = np.zeros((last - self._first, STEPS))  # (own slices, steps)
        self._steps = 0

    @property
    def full(self) -> bool:
        """Whether the losses must be summed before the next step."""
        return self._steps == STEPS

    def put(self, slices: int | NDArray[np.intp], loss: float | NDArray[np.floating]) -> None:
        """The loss sum of one of this rank's slices in the current step, or those of several."""
        self._losses[slices - self._first, self._steps] = loss

    def next_step(self) -> None:
        """The current step is complete."""
        self._steps += 1

    def take(self) -> np.ndarray:
        """The loss sum of each step since the last call, float64, the same on every rank.

        Collective.
        """
        steps = self._steps
        self._steps = 0
        totals = np.empty(steps)
        if steps == 0:
            return totals
        counts = [(last - first) * steps for first, last in self._runs]
        rows = self.comm.gather(self._losses[:, :steps].reshape(-1), counts)
        if rows is not None:
            totals[:] = ordered_total(rows.reshape(self._slices, steps))
        with self.comm.status.waiting():
            self.comm.mpi.Bcast(totals)
        return totals


def ordered_total(rows: np.ndarray) -> np.ndarray:
    """Sum over the first axis in the order of the tree: rows of slices, (S, ...) -> (...)."""

    def total(a: int, b: int) -> np.ndarray:
        if b - a == 1:
            return rows[a]
        m = tree.middle(a, b)
        return total(a, m) + total(m, b)

    return total(0, len(rows))
