"""Loss and accuracy or R2 of a network on a data set, measured by all ranks.

The data set is cut into slices of a fixed length, whatever the number of ranks; each slice gives
sums in float64, and the sums are added in the order of the tree.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distnn.data.scaling import Units
from distnn.nn.backprop import SlicePass
from distnn.nn.network import Network, decide
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.reduction.loss_sums import ordered_total
from distnn.parallel.reduction.partition import bounds
from distnn.training.dataset import Dataset

Array = NDArray[Any]

ROWS = 256  # of a slice: enough for fast products, few enough for many ranks to share the work


class Evaluation:
    """Measures one network on one data set, as often as asked.

    Args:
        comm: all ranks; each evaluates its own contiguous slices.
        network: whose weights are used, wherever they lie at the time.
        dataset: what it is measured on.
        prefix: in front of the names of the measures, such as ``test_``.
        classify: whether the targets are classes; None: see `are_classes`.
        units: of real targets: R2 is in their own.
    """

    def __init__(
        self,
        comm: Communicator,
        network: Network,
        dataset: Dataset,
        prefix: str,
        classify: bool | None = None,
        units: Units | None = None,
    ) -> None:
        self.comm, self.network, self.dataset, self.prefix = comm, network, dataset, prefix
        self.units = None if units is None or units.are_linear else units
        self.classify = are_classes(network, dataset) if classify is None else classify
        self._pass = SlicePass(network, min(ROWS, len(dataset)))
        self._deviation = np.empty(0)  # about the mean, of each output: the denominator of R2

    def measure(self) -> dict[str, float]:
        """The measures, the same on every rank. Collective.

        Returns:
            ``loss``, the mean over the items, and ``accuracy`` (the share of items whose class is
            decided rightly) or ``r2`` (1 - residual / deviation about the mean, averaged over the
            outputs), each with the prefix in front.
        """
        slices = rank_slices(self.comm, len(self.dataset))
        sums = [self._sums(lo, hi) for lo, hi in slices[self.comm.rank]]
        width = 2 if self.classify else 1 + self.network.layers[-1]
        counts = [width * len(own) for own in slices]
        gathered = self.comm.gather(np.array(sums, np.float64).reshape(-1), counts)
        result: dict[str, float] = {}
        if gathered is not None:
            result = self._measures(ordered_total(gathered.reshape(-1, width)))
        return self.comm.broadcast(result)

    def _sums(self, lo: int, hi: int) -> list[float]:
        """Loss and measure of one slice, the rows lo … hi, summed over its items."""
        self.comm.status.moved()
        T = self._pass.target(hi - lo)
        loss = float(self._pass.forward(self.dataset.view(lo, hi, T), T))
        if self.classify:
            return [loss, correct(self._pass.output, T)]
        return [loss, *squared_residuals(self._own(self._pass.output), self._own(T))]

    def _measures(self, sums: Array) -> dict[str, float]:
        items = len(self.dataset)
        measures = {f"{self.prefix}loss": float(sums[0]) / items}
        if self.classify:
            measures[f"{self.prefix}accuracy"] = float(sums[1]) / items
        else:
            measures[f"{self.prefix}r2"] = self._r2(sums[1:])
        return measures

    def _r2(self, residual: Array) -> float:
        """Coefficient of determination, averaged over the outputs; NaN for constant targets."""
        if not len(self._deviation):
            T = self._own(self.dataset.T).astype(np.float64)  # (n, n_L)
            self._deviation = np.square(T - T.mean(axis=0)).sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = np.where(self._deviation > 0, residual / self._deviation, np.nan)
        return float(np.mean(1 - shares))

    def _own(self, Y: Array) -> Array:
        """Outputs or targets (n, n_L) in the targets' own unit, where R2 depends on it."""
        if self.units is None:
            return Y
        own = Y.astype(np.float64)
        self.units.undo(own)
        return own


def rank_slices(comm: Communicator, items: int) -> list[list[tuple[int, int]]]:
    """The slices of every rank, each as its first and one-past-last item."""
    slices = -(-items // ROWS)
    return [
        [(k * ROWS, min((k + 1) * ROWS, items)) for k in range(*bounds(slices, comm.size, rank))]
        for rank in range(comm.size)
    ]


def are_classes(network: Network, dataset: Dataset) -> bool:
    """Whether a network's targets are classes, where the caller does not say."""
    cross_entropy = network.loss in ("cross-entropy", "binary-cross-entropy")
    return dataset.classes > 0 or network.output == "softmax" or cross_entropy


def correct(outputs: Array, T: Array) -> float:
    """How many of the outputs (b, n_L) decide for the class that the targets (b, n_L) do."""
    return float(np.count_nonzero(decide(outputs) == decide(T)))


def squared_residuals(outputs: Array, T: Array) -> list[float]:
    """Sum of squared differences of each output over the items, in float64."""
    return [float(s) for s in np.square(outputs - T.astype(np.float64)).sum(axis=0)]
