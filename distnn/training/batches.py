"""How many items the steps of each epoch take."""

from dataclasses import dataclass
from typing import Self

from distnn.config.options import TrainConfig
from distnn.errors import InputError
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

    def steps_until(self, epochs: float) -> int:
        """Of the first so many epochs, the last one in part."""
        whole = int(epochs)
        growing = sum(self.steps(epoch) for epoch in range(min(whole, self.growth)))
        of_largest = max(0, whole - self.growth) * self.steps(self.growth)
        return growing + of_largest + round((epochs - whole) * self.steps(whole))

    def items_until(self, position: Position) -> int:
        """Items trained on up to a position, each epoch's counted anew."""
        in_epoch = min(position.step * self.size(position.epoch), self.items)
        return position.epoch * self.items + in_epoch
