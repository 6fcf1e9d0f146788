"""The gradient noise scale (McCandlish et al. 2018, arXiv 1812.06162): how large a batch pays.

With G the mean gradient of all data and S the trace of the covariance of one item's gradient, a
batch of B items has E|G_B|^2 = |G|^2 + S / B (eq. A.1). A step knows the gradient of the batch and
those of its slices, which are smaller batches; two such equations give both unknowns, unbiased:

    S = (mean_k |G_k|^2 - |G_B|^2) / (mean_k 1/b_k - 1/B);  |G|^2 = |G_B|^2 - S / B

(A.2 and A.3, for slices k whose sizes b_k may differ by one item). Either is noisy in one step and
is summed over an epoch; the noise scale is the quotient of the sums, S / |G|^2 (eq. 2.9). At a
batch of this size, training takes about twice the fewest possible steps and twice the fewest
possible items (eq. 2.11): a larger batch saves few steps.
"""

from itertools import cycle

import numpy as np

from distnn.nn.layout import Array
from distnn.nn.products import Product
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.reduction.ownership import Ownership
from distnn.parallel.reduction.partition import slice_rows
from distnn.run.position import Position

BLOCK = 32_768  # elements


class NoiseScale:
    """Collects the squared norms of this rank's slices' gradients, step by step.

    The norms are sums in float64 in a fixed order, by whoever has the slice, so that the bits do
    not depend on the ranks.
    """

    def __init__(self, comm: Communicator, ownership: Ownership) -> None:
        self._comm, self._slices = comm, ownership.slices
        self._counts = [hi - lo for lo, hi in map(ownership.run, range(comm.size))]
        own = self._counts[comm.rank]
        self._own = [0.0] * own  # of this step
        self._squares: list[float] = []  # of own slices, step by step
        self._steps: list[tuple[int, float]] = []  # items, and the factor in the gradients
        self._block = np.empty(BLOCK)

    def observed(self, product: Product, first: int, count: int) -> Product:
        """A product that makes parts of the gradients of this rank's slices by turns, as
        `backprop.BackwardPass` does, and sees them before anything is added to them."""
        slices = cycle(range(first, first + count))

        def product_and_squares(X: Array, Y: Array, out: Array) -> None:
            product(X, Y, out)
            self._own[next(slices)] += self._sum_of_squares(out)

        return product_and_squares

    def _sum_of_squares(self, matrix: Array) -> float:
        total, flat = 0.0, matrix.reshape(-1)
        for lo in range(0, len(flat), BLOCK):
            part = flat[lo : lo + BLOCK]
            block = self._block[: len(part)]
            np.copyto(block, part)
            total += float(np.dot(block, block))
        return total

    def next_step(self, items: int, scale: float) -> None:
        """A step of so many items is complete, whose gradients were `scale` times those of the mean
        loss."""
        self._steps.append((items, scale))
        self._squares += self._own
        self._own[:] = [0.0] * len(self._own)

    def add_to(self, position: Position, norms: list[float]) -> None:
        """Add the estimates of all steps since the last call to the position's sums. Collective.

        Args:
            norms: on rank 0, of the batch's gradient in each of these steps.
        """
        counts = [own * len(self._steps) for own in self._counts]
        gathered = self._comm.gather(np.array(self._squares), counts)
        sums = [position.signal, position.noise]
        if gathered is not None:
            ends = np.cumsum(counts)[:-1]
            parts = np.split(gathered, ends)
            shaped = [part.reshape(len(self._steps), -1) for part in parts]
            for (items, scale), norm, row in zip(
                self._steps, norms, np.concatenate(shaped, axis=1), strict=True
            ):
                signal, noise = estimates(row.tolist(), norm, items, scale)
                sums = [sums[0] + signal, sums[1] + noise]
        position.signal, position.noise = self._comm.broadcast(sums)
        self._squares.clear()
        self._steps.clear()


def estimates(squares: list[float], norm: float, items: int, scale: float) -> tuple[float, float]:
    """|G|^2 and S from one step; zeros where fewer than two slices hold items.

    Args:
        squares: of the norm of each slice's part of the batch's gradient.
        norm: of the batch's gradient.
        items: B.
        scale: the factor in the gradients.
    """
    sizes = [
        hi - lo for lo, hi in (slice_rows(k, len(squares), items) for k in range(len(squares)))
    ]
    used = [(square, size) for square, size in zip(squares, sizes, strict=True) if size]
    if len(used) < 2 or scale == 0:
        return 0.0, 0.0
    small = sum(square * (items / size / scale) ** 2 for square, size in used) / len(used)
    inverse = sum(1 / size for _, size in used) / len(used)
    big = (norm / scale) ** 2
    noise = (small - big) / (inverse - 1 / items)
    return big - noise / items, noise


def noise_scale(position: Position) -> float:
    """In items, over the epoch so far; NaN where nothing but noise is seen, or nothing at all."""
    return position.noise / position.signal if position.signal > 0 else float("nan")
