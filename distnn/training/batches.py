"""How many items the steps of each epoch take, and at which learning rate."""

from dataclasses import dataclass
from typing import Self

from distnn.checks import LARGEST_COUNT
from distnn.config.options import TrainConfig
from distnn.errors import InputError
from distnn.nn.schedules import batch_factor, factor
from distnn.run.position import Position


def check_growth(config: TrainConfig) -> None:
    """InputError if the batch is to grow from a size that is larger."""
    if config.batch_warmup_epochs and config.base_batch > config.batch_size:
        sizes = f"from --base-batch {config.base_batch} to --batch-size {config.batch_size}"
        what = f"the batch cannot grow {sizes}"
        raise InputError(what, "batch_warmup_epochs", "give a smaller --base-batch")


@dataclass(frozen=True)
class Batches:
    """The batch size grows over the first epochs, by the same factor from each to the next.

    Small batches take more steps of an epoch, which is worth most where the loss falls fast; the
    largest batch that pays grows during a training (McCandlish et al. 2018, arXiv 1812.06162,
    sec. 2.3). Smith et al. 2018 (arXiv 1711.00489) let batches grow in place of a falling rate.

    Attributes:
        items: of the training set.
        first, largest: batch size of the first epoch, and of all after `growth` epochs.
    """

    items: int
    first: int
    largest: int
    growth: int

    @classmethod
    def of(cls, config: TrainConfig, items: int) -> Self:
        """Those of a training: from ``base_batch`` to ``batch_size`` in ``batch_warmup_epochs``."""
        return cls(items, config.base_batch, config.batch_size, config.batch_warmup_epochs)

    def size(self, epoch: int) -> int:
        """Items of a batch in an epoch, counted from 0."""
        if epoch >= self.growth:
            return self.largest
        return round(self.first * (self.largest / self.first) ** (epoch / self.growth))

    def steps(self, epoch: int) -> int:
        """Of an epoch, counted from 0."""
        return -(-self.items // self.size(epoch))

    def steps_until(self, epochs: int) -> int:
        """Of the first so many epochs."""
        growing = sum(self.steps(epoch) for epoch in range(min(epochs, self.growth)))
        return growing + max(0, epochs - self.growth) * self.steps_of_largest

    @property
    def steps_of_largest(self) -> int:
        """Of an epoch of the largest batches, in which warm-up and schedule count."""
        return self.steps(self.growth)

    def scheduled(self, t: int, epoch: int, first: int) -> float:
        """Which step of the schedule the run's step t = 1, 2, ... is.

        Schedules are of epochs, as in the papers: each is as long as one of the largest batches,
        however many steps it has. Without growth this is t itself.

        Args:
            epoch: that t is in, counted from 0.
            first: steps before that epoch, of the run.
        """
        ahead = epoch * self.steps_of_largest - self.steps_until(epoch)
        pace = self.steps_of_largest / self.steps(epoch)
        return t + ahead + (t - 1 - first) * (pace - 1)

    def items_until(self, position: Position) -> int:
        """Items trained on up to a position, each epoch's counted anew."""
        in_epoch = min(position.step * self.size(position.epoch), self.items)
        return position.epoch * self.items + in_epoch


@dataclass(frozen=True)
class EpochRates:
    """The learning rates of the steps of one epoch.

    Attributes:
        epoch: counted from 0.
        first: steps of the run before it.
        schedule, warmup: see `schedules.factor`; steps of the largest batches.
        total: steps of the largest batches in the whole training.
        scale: what the learning rate is multiplied with for the size of the batches.
    """

    batches: Batches
    epoch: int
    first: int
    schedule: str
    warmup: int
    total: int
    scale: float

    @classmethod
    def of(cls, config: TrainConfig, batches: Batches, position: Position, epochs: int) -> Self:
        """Those of the epoch that is under way, of so many."""
        epoch, first = position.epoch, position.steps - position.step
        warmup_epochs = min(config.warmup_epochs, LARGEST_COUNT)
        warmup = max(config.warmup, round(warmup_epochs * batches.steps_of_largest))
        total = epochs * batches.steps_of_largest
        size, how = batches.size(epoch), config.scale_learning_rate
        scale = batch_factor(how, size, config.base_batch)
        return cls(batches, epoch, first, config.schedule, warmup, total, scale)

    def rate(self, learning_rate: float, t: int) -> float:
        """That of the run's step t = 1, 2, ..., of the optimizer's learning rate."""
        scheduled = self.batches.scheduled(t, self.epoch, self.first)
        course = factor(self.schedule, scheduled, self.total, self.warmup)
        return learning_rate * self.scale * course
