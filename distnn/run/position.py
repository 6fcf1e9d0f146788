"""How far a training is: what a checkpoint must say to go on from it."""

from dataclasses import dataclass


@dataclass
class Position:
    """How far training is, the same on every rank and for any number of them.

    Attributes:
        epoch: epochs completed.
        step: steps done in the epoch that is under way.
        steps: steps done in all.
        loss: sum of the losses of the items of this epoch's steps.
        signal, noise: with ``noise_scale``, sums of this epoch's steps, see `training.noise_scale`.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    loss: float = 0.0
    signal: float = 0.0
    noise: float = 0.0
