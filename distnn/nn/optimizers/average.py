"""An exponential moving average of the weights, kept beside the training.

    a = beta a + (1 - beta) w after each step, from a = 0; the average is a / (1 - beta^t).

The division, as Adam's, makes it a weighted mean of the weights after each step so far, from the
first step on (Polyak and Juditsky 1992 for the mean; Kingma and Ba 2015, section 3, for the
division). It follows any optimizer and schedule and changes no bit of the training, which is why it
is here rather than a schedule-free rule (Defazio et al. 2024), whose gradients are taken at other
weights than those that are evaluated.
"""

from collections.abc import Sequence

import numpy as np

from distnn.nn.layout import Array
from distnn.nn.optimizers.base import DType, Rule, scalars

NAME = "average"  # of the state vector, after the optimizer's own


def with_average(rule: Rule, beta: float, dtype: DType) -> Rule:
    """The rule, and then a step of the average, the last of the state vectors."""
    (rest,) = scalars(dtype, 1 - beta)

    def update(w: Array, g: Array, state: Sequence[Array], scratch: Sequence[Array]) -> None:
        rule(w, g, state[:-1], scratch)
        average, change = state[-1], scratch[0]
        np.subtract(w, average, change)
        np.multiply(change, rest, change)
        np.add(average, change, average)

    return update


def averaged(vector: Array, beta: float, steps: int) -> Array:
    """The average after so many steps, from its state vector (n,): a new vector."""
    return vector / vector.dtype.type(1 - beta**steps)
