"""Early stopping: the best epoch so far on the validation set, and when patience is exhausted."""

import math
from collections.abc import Mapping
from typing import Any

from distnn.training.scores import SMALLER_IS_BETTER

PREFIX = "validation_"


class EarlyStopping:
    """The best value of a metric so far. The same on every rank, as the metric is.

    Args:
        metric: its name, as ``--metric`` has it.
        patience: epochs without a better value after which training ends; None: never.

    Attributes:
        epoch: of the best value; 0 before the first one.
        value: the best one; None before the first.
    """

    def __init__(self, metric: str, patience: int | None) -> None:
        self.metric, self.patience = metric, patience
        self.epoch, self.value = 0, None  # type: int, float | None

    def see(self, epoch: int, record: Mapping[str, Any]) -> bool:
        """Take in the measures of an epoch; whether it is the best. NaN never is."""
        value = float(record[PREFIX + self.metric.replace("-", "_")])
        is_better = math.isfinite(value) and (
            self.value is None or self._score(value) < self._score(self.value)
        )
        if is_better:
            self.epoch, self.value = epoch, value
        return is_better

    def is_over(self, epoch: int) -> bool:
        """Whether patience is exhausted after so many epochs."""
        return self.patience is not None and epoch - self.epoch >= self.patience

    @property
    def score(self) -> float:
        """The best value, turned so that less is better; infinity before the first."""
        return math.inf if self.value is None else self._score(self.value)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, for `restore`."""
        return {"epoch": self.epoch, "value": self.value}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.epoch, self.value = state["epoch"], state["value"]

    def _score(self, value: float) -> float:
        return value if self.metric in SMALLER_IS_BETTER else -value
