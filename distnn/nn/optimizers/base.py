"""What an optimizer is, and what their rules have in common.

An update rule changes weights ``w`` in place, given the gradient ``g`` (overwritten), the
optimizer's state vectors and scratch of the same shape: ``rule(w, g, state, scratch)``.

With scope "element" a rule works on one contiguous block of the flat vectors (32,768 elements, so
that the block stays in cache through all passes of the rule). It is element-wise, so the bits do
not depend on how the vector is cut into blocks.

With scope "matrix" a rule gets a layer's whole weights W[l] (1 + n_in, n_out) as a C-contiguous
matrix, row 0 the bias, because it needs norms or products of them. One rank does all of it, so the
bits do not depend on the ranks either.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np

from distnn.checks import number
from distnn.nn.layout import Array

DType = np.dtype[Any] | str
Rule = Callable[[Array, Array, Sequence[Array], Sequence[Array]], None]
Scope = Literal["element", "matrix"]

BLOCK = 32_768  # elements of a matrix that go through all passes of a rule together
GRANULE = 1_024  # elements whose squares are added up in the vectors' own precision


class Optimizer(ABC):
    """An update rule and its hyperparameters. The caller holds the state vectors.

    Attributes:
        name: the rule's name in ``OPTIMIZERS``.
        state: names of its state vectors, each as long as the weights, zero at the start.
        scope: what a rule is given at a time, see above.
        scratch: how many scratch vectors a rule uses.
    """

    name: ClassVar[str]
    state: ClassVar[tuple[str, ...]] = ()
    scope: ClassVar[Scope] = "element"
    scratch: ClassVar[int] = 2

    def __init__(self, learning_rate: float, weight_decay: float) -> None:
        self.learning_rate = number(learning_rate, "learning_rate", least=0)
        self.weight_decay = number(weight_decay, "weight_decay", least=0)

    @abstractmethod
    def rule(self, t: int, learning_rate: float, dtype: DType) -> Rule:
        """The update of step t = 1, 2, ...: ``rule(w, g, state, scratch)``.

        Args:
            t: the step, from 1.
            learning_rate: at this step, the schedule's factor included.
            dtype: of the vectors; the hyperparameters are rounded to it once.
        """

    def rules(self, t: int, learning_rate: float, dtype: DType, layers: int) -> list[Rule]:
        """The updates of step t for W[1] ... W[L]: one for each matrix, most often the same."""
        return [self.rule(t, learning_rate, dtype)] * layers

    @property
    def is_plain(self) -> bool:
        """Whether the update is w -= lr g and no more.

        Gradients are linear in D[L], which is small: if D[L] is multiplied by lr, `descend` is the
        whole update, which saves a pass over all gradients.
        """
        return False

    def config(self) -> dict[str, Any]:
        """Plain values that rebuild the optimizer: ``type(self)(**config)``."""
        return dict(vars(self))

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.config().items())
        return f"{type(self).__name__}({arguments})"

    def _decay(self, dtype: DType) -> Callable[[Array, Array, Array], None]:
        """L2 weight decay, g += weight_decay * w, on all weights, bias included (as PyTorch)."""
        if self.weight_decay == 0:
            return no_decay
        (decay,) = scalars(dtype, self.weight_decay)

        def add_decay(w: Array, g: Array, scratch: Array) -> None:
            np.multiply(w, decay, scratch)
            np.add(g, scratch, g)

        return add_decay


def descend(w: Array, g: Array, state: Sequence[Array], scratch: Sequence[Array]) -> None:
    """w -= g: the rule of a plain optimizer where gradients come multiplied by lr."""
    np.subtract(w, g, w)


def step_over_root(w: Array, d: Array, v: Array, lr: Array, eps: Array, scratch: Array) -> None:
    """w -= lr d / (sqrt(v) + eps)."""
    np.sqrt(v, scratch)
    np.add(scratch, eps, scratch)
    np.divide(d, scratch, scratch)
    np.multiply(scratch, lr, scratch)
    np.subtract(w, scratch, w)


def no_decay(w: Array, g: Array, scratch: Array) -> None:
    """Leave w and g as they are."""


@lru_cache(64)
def scalars(dtype: DType, *values: float) -> tuple[Array, ...]:
    """The numbers as 0-d arrays of the vectors' dtype: the cheapest scalars a ufunc can take.

    Read only, and kept: most are the same in every step.
    """
    return tuple(np.array(value, dtype) for value in values)


def blocks(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """The same elements of C-contiguous arrays of one shape, block by block, as flat views."""
    flat = [array.reshape(-1) for array in arrays]
    for lo in range(0, flat[0].size, BLOCK):
        yield tuple(array[lo : lo + BLOCK] for array in flat)


def by_blocks(rule: Rule) -> Rule:
    """An element-wise rule for a whole matrix, so that a block stays in cache all the same."""

    def update(w: Array, g: Array, state: Sequence[Array], scratch: Sequence[Array]) -> None:
        for w_, g_, *others in blocks(w, g, *state, *scratch):
            rule(w_, g_, others[: len(state)], others[len(state) :])

    return update


def sum_of_squares(vector: Array) -> float:
    """Sum of squares in an order that the length alone decides: of 1,024 elements in the vector's
    own precision, of these sums in float64."""
    whole = vector.size // GRANULE * GRANULE
    rows, rest = vector[:whole].reshape(-1, GRANULE), vector[whole:]
    return float(np.vecdot(rows, rows).sum(dtype=np.float64)) + float(np.vecdot(rest, rest))
