"""The metrics of a network on a data set, measured by all ranks.

The data set is cut into slices of a fixed length, whatever the number of ranks; each slice gives
sums in float64, and the sums are added in the order of the tree. What needs all rows at once
(counts of classes, the order of scores) is computed on rank 0 from a number per row, in row order.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distnn.data.scaling import Units
from distnn.errors import InputError
from distnn.nn.backprop import SlicePass
from distnn.nn.network import Network, decide
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.reduction.loss_sums import ordered_total
from distnn.parallel.reduction.partition import bounds
from distnn.training import scores
from distnn.training.dataset import Dataset
from distnn.training.scores import CLASS_METRICS, REAL_METRICS, ClassCounts

Array = NDArray[Any]

ROWS = 256  # of a slice: enough for fast products, few enough for many ranks to share the work
MOST_SCORES = 1 << 28  # outputs that are kept to put them in order, over all ranks
DECIDED = ("balanced-accuracy", "f1")  # metrics that need each row's decision


class Evaluation:
    """Measures one network on one data set, as often as asked.

    Args:
        comm: all ranks; each evaluates its own contiguous slices.
        network: whose weights are used, wherever they lie at the time.
        dataset: what it is measured on.
        prefix: in front of the names of the measures, such as ``test_``.
        classify: whether the targets are classes; None: see `are_classes`.
        metric: one that `measure` gives in any case.
        units: of real targets, for what is measured in them.
    """

    def __init__(
        self,
        comm: Communicator,
        network: Network,
        dataset: Dataset,
        prefix: str,
        classify: bool | None = None,
        metric: str = "loss",
        units: Units | None = None,
    ) -> None:
        self.comm, self.network, self.dataset, self.prefix = comm, network, dataset, prefix
        self.classify = are_classes(network, dataset) if classify is None else classify
        self.metric = metric
        self.units = Units() if units is None else units
        self._pass = SlicePass(network, min(ROWS, len(dataset)))
        self._slices = rank_slices(comm, len(dataset))
        self._deviations: dict[bool, Array] = {}  # about the mean: in the targets' own unit or not

    def measure(self) -> dict[str, float]:
        """The measures of each epoch, the same on every rank. Collective.

        Returns:
            ``loss``, the mean over the items, ``accuracy`` (the share of items whose class is
            decided rightly) or ``r2`` (1 - residual / deviation about the mean, averaged over the
            outputs), and the metric that was asked for, each with the prefix in front. With weights
            every mean is one of weights.
        """
        return self._measured([self.metric], self._few)

    def report(self) -> dict[str, Any]:
        """All measures, the same on every rank. Collective.

        Returns:
            What `measure` gives. Classes: balanced_accuracy, f1 (the mean over the classes), auc
            (of more than two classes the mean over one against all others; left out for more than
            `MOST_SCORES` outputs), log_loss where the outputs are probabilities, ``classes`` (of
            each: precision, recall, f1, support) and ``confusion`` (rows: the true class), as long
            as there are not too many. Real targets: rmse and mae in the targets' own unit, the
            means over the targets, and ``targets`` with the figures of each if there are several.
        """
        wanted = CLASS_METRICS if self.classify else REAL_METRICS
        return self._measured([*wanted, "log-loss"], self._all)

    def _measured(
        self, wanted: Sequence[str], result: Callable[[Array, "_Outputs"], dict[str, Any]]
    ) -> dict[str, Any]:
        kept = self._kept(wanted)
        own = self._slices[self.comm.rank]
        sums = [self._sums(lo, hi, wanted, kept) for lo, hi in own]
        width = self._width(wanted)
        counts = [width * len(of_rank) for of_rank in self._slices]
        gathered = self.comm.gather(np.array(sums, np.float64).reshape(-1), counts)
        kept.gather(self.comm, [sum(hi - lo for lo, hi in runs) for runs in self._slices])
        measures: dict[str, Any] = {}
        if gathered is not None:
            with self.comm.status.working():
                found = result(ordered_total(gathered.reshape(-1, width)), kept)
            measures = {f"{self.prefix}{name}": value for name, value in found.items()}
        return self.comm.broadcast(measures)

    # --- one slice ----------------------------------------------------------------------------

    def _width(self, wanted: Sequence[str]) -> int:
        """How many sums a slice gives."""
        if self.classify:
            return 2 + self._has_log_loss(wanted)
        return 1 + self.network.layers[-1] * (3 if self._in_units(wanted) else 1)

    def _in_units(self, wanted: Sequence[str]) -> bool:
        """Whether sums are taken in the targets' own unit, too. R2 needs them after a transform."""
        return "rmse" in wanted or "mae" in wanted or not self.units.are_linear

    def _has_log_loss(self, wanted: Sequence[str]) -> bool:
        network = self.network
        single = network.layers[-1] == 1 and network.output == "sigmoid"
        return "log-loss" in wanted and (network.output == "softmax" or single)

    def _sums(self, lo: int, hi: int, wanted: Sequence[str], kept: "_Outputs") -> list[float]:
        """Loss and measures of one slice, the rows lo … hi, summed over its items."""
        self.comm.status.moved()
        weights = self.dataset.weights
        w = None if weights is None else weights[lo:hi]
        T = self._pass.target(hi - lo)
        rows, column = self.dataset.view(lo, hi, T), None if w is None else w[:, None]
        loss = float(self._pass.forward(rows, T, w=column))
        A = self._pass.output
        kept.put(A)
        if self.classify:
            sums = [loss, correct(A, T, w)]
            if self._has_log_loss(wanted):
                losses = scores.log_losses(A, T)
                sums.append(float(losses.sum() if w is None else losses @ w))
            return sums
        sums = [loss, *squared_residuals(A, T, w)]
        if self._in_units(wanted):
            own_A, own_T = self.units.own(A), self.units.own(T)
            sums += squared_residuals(own_A, own_T, w)
            errors = np.abs(own_A - own_T)
            sums += (errors if w is None else errors * w[:, None]).sum(axis=0).tolist()
        return sums

    def _kept(self, wanted: Sequence[str]) -> "_Outputs":
        """What has room for what must be known of each row."""
        lo_hi, n_L = self._slices[self.comm.rank], self.network.layers[-1]
        rows = sum(hi - lo for lo, hi in lo_hi)
        decided = self.classify and any(metric in wanted for metric in DECIDED)
        few = len(self.dataset) * n_L <= MOST_SCORES or n_L <= 2
        scored = n_L if self.classify and "auc" in wanted and few else 0
        return _Outputs(rows, decided, min(scored, 1) if n_L <= 2 else scored, self.network.dtype)

    # --- on rank 0 ----------------------------------------------------------------------------

    def _few(self, sums: Array, kept: "_Outputs") -> dict[str, float]:
        """What `measure` gives."""
        total = self.dataset.total_weight
        measures = {"loss": float(sums[0]) / total}
        if self.classify:
            measures["accuracy"] = float(sums[1]) / total
            if self.metric in DECIDED:
                counts = self._counts(kept)
                by_name = {"balanced-accuracy": counts.balanced_accuracy, "f1": counts.macro_f1}
                measures[_key(self.metric)] = by_name[self.metric]
            elif self.metric == "auc":
                measures["auc"] = self._auc(kept)
            return measures
        each = self._of_targets(sums)
        measures["r2"] = float(np.mean(each["r2"]))
        if self.metric in ("rmse", "mae"):
            measures[self.metric] = float(np.mean(each[self.metric]))
        return measures

    def _all(self, sums: Array, kept: "_Outputs") -> dict[str, Any]:
        """What `report` gives."""
        total = self.dataset.total_weight
        report: dict[str, Any] = {"loss": float(sums[0]) / total}
        if self.classify:
            return report | {"accuracy": float(sums[1]) / total} | self._of_classes(sums, kept)
        each = self._of_targets(sums)
        report |= {name: float(np.mean(values)) for name, values in each.items()}
        if 1 < len(each["r2"]) <= scores.MOST_LISTED:
            report["targets"] = _listed(each)
        return report

    def _of_classes(self, sums: Array, kept: "_Outputs") -> dict[str, Any]:
        counts, truth, w = self._counts(kept), self._truth(), self.dataset.weights
        found: dict[str, Any] = {
            "balanced_accuracy": counts.balanced_accuracy,
            "f1": counts.macro_f1,
            "auc": self._auc(kept),
        }
        if len(sums) > 2:
            found["log_loss"] = float(sums[2]) / self.dataset.total_weight
        if (classes := len(counts.truths)) <= scores.MOST_LISTED:
            names = ("precision", "recall", "f1")
            figures = {name: getattr(counts, name) for name in names}
            found["classes"] = _listed(figures | {"support": counts.truths})
        if classes <= scores.MOST_CONFUSED:
            matrix = scores.confusion(truth, kept.decided, classes, w)
            found["confusion"] = matrix.tolist()
        return found

    def _of_targets(self, sums: Array) -> dict[str, Array]:
        """RMSE, MAE and R2 of each target, those of them that the sums allow."""
        n_L, total = self.network.layers[-1], self.dataset.total_weight
        residual = sums[1 : 1 + n_L]
        if len(sums) == 1 + n_L:
            return {"r2": scores.r2(residual, self._deviation(own=False))}
        own_residual, errors = sums[1 + n_L : 1 + 2 * n_L], sums[1 + 2 * n_L :]
        # a straight line changes no R2: without a transform it has the same bits everywhere
        if own := not self.units.are_linear:
            residual = own_residual
        return {
            "rmse": np.sqrt(own_residual / total),
            "mae": errors / total,
            "r2": scores.r2(residual, self._deviation(own)),
        }

    def _deviation(self, own: bool) -> Array:
        if own not in self._deviations:
            T = self.units.own(self.dataset.T) if own else self.dataset.T
            self._deviations[own] = scores.deviation(T, self.dataset.weights)
        return self._deviations[own]

    def _truth(self) -> NDArray[np.intp]:
        """The class of each row."""
        return self.dataset.T[:, 0] if self.dataset.classes else decide(self.dataset.T)

    def _counts(self, kept: "_Outputs") -> ClassCounts:
        classes = max(2, self.network.layers[-1])
        return ClassCounts.of(self._truth(), kept.decided, classes, self.dataset.weights)

    def _auc(self, kept: "_Outputs") -> float:
        truth, w = self._truth(), self.dataset.weights
        if len(kept.columns) == 1:
            return scores.roc_auc(truth == 1, kept.columns[0], w)
        areas = np.array([scores.roc_auc(truth == c, A, w) for c, A in enumerate(kept.columns)])
        there = np.isfinite(areas)  # of a class without rows nothing is known
        return float(areas[there].mean()) if there.any() else float("nan")


class _Outputs:
    """What is kept of each row on its rank until rank 0 has that of all rows, in their order.

    Attributes, on rank 0 after `gather`:
        decided: class numbers (n,).
        columns: scores (n,) of each class, of the second one alone if there are two; none if they
            are not wanted.
    """

    def __init__(self, rows: int, decided: bool, scored: int, dtype: Any) -> None:
        self._decided = np.empty(rows if decided else 0, np.intp)
        self._scores = np.empty((scored, rows), dtype)
        self._wanted, self._done = decided, 0
        self.decided = np.empty(0, np.intp)
        self.columns: list[Array] = []

    def put(self, A: Array) -> None:
        """The outputs (b, n_L) of the next rows."""
        lo, hi = self._done, self._done + len(A)
        self._done = hi
        if self._wanted:
            self._decided[lo:hi] = decide(A)
        if len(self._scores):
            self._scores[:, lo:hi] = A[:, -len(self._scores) :].T

    def gather(self, comm: Communicator, counts: list[int]) -> None:
        """Collective; every rank's rows follow those of the ranks before it."""
        if self._wanted:
            decided = comm.gather(self._decided, counts)
            self.decided = self.decided if decided is None else decided
        columns = [comm.gather(column, counts) for column in self._scores]
        self.columns = [column for column in columns if column is not None]


def check_metric(metric: str, is_classification: bool) -> None:
    """InputError if a metric does not fit the task."""
    fitting = CLASS_METRICS if is_classification else REAL_METRICS
    if metric != "loss" and metric not in fitting:
        task = "classification" if is_classification else "regression"
        remedy = f"known: loss, {', '.join(fitting)}"
        raise InputError(f"{metric} is not one of {task}", "metric", remedy)


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


def correct(outputs: Array, T: Array, w: Array | None = None) -> float:
    """How many of the outputs (b, n_L) decide for the class that the targets (b, n_L) do."""
    right = decide(outputs) == decide(T)
    return float(np.count_nonzero(right) if w is None else w[right].sum())


def squared_residuals(outputs: Array, T: Array, w: Array | None = None) -> list[float]:
    """Sum of squared differences of each output over the items, in float64."""
    squares = np.square(outputs - T.astype(np.float64))
    return [float(s) for s in (squares if w is None else squares * w[:, None]).sum(axis=0)]


def _key(metric: str) -> str:
    return metric.replace("-", "_")


def _listed(figures: dict[str, Array]) -> list[dict[str, float]]:
    """Figures (k,) by name as one object for each class or target."""
    columns = {name: values.tolist() for name, values in figures.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
