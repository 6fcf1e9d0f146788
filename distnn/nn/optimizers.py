"""Optimizers: from weights w and gradient g to new weights, in place on a block of a vector.

An update rule works on one contiguous block of the flat vectors (32,768 elements, so that the block
stays in cache through all passes of the rule): weights ``w``, gradient ``g`` (overwritten), the
optimizer's state vectors, and two scratch vectors of the same length. It is element-wise, so the
bits do not depend on how the vector is cut into blocks.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import sqrt
from typing import Any, ClassVar

import numpy as np

from distnn.checks import number
from distnn.nn.layout import Array

DType = np.dtype[Any] | str
Rule = Callable[[Array, Array, Sequence[Array], Sequence[Array]], None]


class Optimizer(ABC):
    """An update rule and its hyperparameters. The caller holds the state vectors.

    Attributes:
        name: the rule's name in ``OPTIMIZERS``.
        state: names of its state vectors, each as long as the weights, zero at the start.
    """

    name: ClassVar[str]
    state: ClassVar[tuple[str, ...]] = ()

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
            return _no_decay
        (decay,) = _scalars(dtype, self.weight_decay)

        def add_decay(w: Array, g: Array, scratch: Array) -> None:
            np.multiply(w, decay, scratch)
            np.add(g, scratch, g)

        return add_decay


class SGD(Optimizer):
    """w -= lr g (documents 000, section 2.4; 003, eq. 14)."""

    name = "sgd"

    def __init__(self, learning_rate: float = 0.1, weight_decay: float = 0.0) -> None:
        super().__init__(learning_rate, weight_decay)

    @property
    def is_plain(self) -> bool:
        """See ``Optimizer.is_plain``."""
        return self.weight_decay == 0

    def rule(self, t: int, learning_rate: float, dtype: DType) -> Rule:
        """See ``Optimizer.rule``."""
        (lr,) = _scalars(dtype, learning_rate)
        decay = self._decay(dtype)

        def update(w: Array, g: Array, state: Sequence[Array], scratch: Sequence[Array]) -> None:
            decay(w, g, scratch[0])
            np.multiply(g, lr, g)
            np.subtract(w, g, w)

        return update


class Momentum(Optimizer):
    """v = mu v + g; w -= lr v (Polyak 1964, in the form of Sutskever et al. 2013 and PyTorch)."""

    name = "momentum"
    state = ("v",)

    def __init__(
        self, learning_rate: float = 0.01, weight_decay: float = 0.0, momentum: float = 0.9
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.momentum = number(momentum, "momentum", least=0, below=1)

    def rule(self, t: int, learning_rate: float, dtype: DType) -> Rule:
        """See ``Optimizer.rule``."""
        (lr,), (mu,) = _scalars(dtype, learning_rate), _scalars(dtype, self.momentum)
        decay = self._decay(dtype)

        def update(w: Array, g: Array, state: Sequence[Array], scratch: Sequence[Array]) -> None:
            (v,) = state
            decay(w, g, scratch[0])
            np.multiply(v, mu, v)
            np.add(v, g, v)
            np.multiply(v, lr, g)
            np.subtract(w, g, w)

        return update


class Nesterov(Momentum):
    """v = mu v + g; w -= lr (g + mu v) (Nesterov 1983, in the form of Sutskever et al. 2013)."""

    name = "nesterov"

    def rule(self, t: int, learning_rate: float, dtype: DType) -> Rule:
        """See ``Optimizer.rule``."""
        (lr,), (mu,) = _scalars(dtype, learning_rate), _scalars(dtype, self.momentum)
        decay = self._decay(dtype)

        def update(w: Array, g: Array, state: Sequence[Array], scratch: Sequence[Array]) -> None:
            (v,), ahead = state, scratch[0]
            decay(w, g, ahead)
            np.multiply(v, mu, v)
            np.add(v, g, v)
            np.multiply(v, mu, ahead)
            np.add(g, ahead, g)
            np.multiply(g, lr, g)
            np.subtract(w, g, w)

        return update


class AdaGrad(Optimizer):
    """n += g^2; w -= lr g / (sqrt(n) + eps) (Duchi, Hazan and Singer 2011, diagonal form)."""

    name = "adagrad"
    state = ("n",)

    def __init__(
        self, learning_rate: float = 0.01, weight_decay: float = 0.0, epsilon: float = 1e-10
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.epsilon = number(epsilon, "epsilon", least=0)

    def rule(self, t: int, learning_rate: float, dtype: DType) -> Rule:
        """See ``Optimizer.rule``."""
        (lr,), (eps,) = _scalars(dtype, learning_rate), _scalars(dtype, self.epsilon)
        decay = self._decay(dtype)

        def update(w: Array, g: Array, state: Sequence[Array], scratch: Sequence[Array]) -> None:
            (n,), s = state, scratch[0]
            decay(w, g, s)
            np.multiply(g, g, s)
            np.add(n, s, n)
            _step_over_root(w, g, n, lr, eps, s)

        return update


class RMSProp(Optimizer):
    """v = rho v + (1 - rho) g^2; w -= lr g / (sqrt(v) + eps) (Tieleman and Hinton 2012)."""

    name = "rmsprop"
    state = ("v",)

    def __init__(
        self,
        learning_rate: float = 0.001,
        weight_decay: float = 0.0,
        rho: float = 0.9,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.rho = number(rho, "rho", least=0, below=1)
        self.epsilon = number(epsilon, "epsilon", least=0)

    def rule(self, t: int, learning_rate: float, dtype: DType) -> Rule:
        """See ``Optimizer.rule``."""
        (lr,), (eps,) = _scalars(dtype, learning_rate), _scalars(dtype, self.epsilon)
        rho, rest = _scalars(dtype, self.rho, 1 - self.rho)
        decay = self._decay(dtype)

        def update(w: Array, g: Array, state: Sequence[Array], scratch: Sequence[Array]) -> None:
            (v,), s = state, scratch[0]
            decay(w, g, s)
            np.multiply(v, rho, v)
            np.multiply(g, g, s)
            np.multiply(s, rest, s)
            np.add(v, s, v)
            _step_over_root(w, g, v, lr, eps, s)

        return update


class Adam(Optimizer):
    """Adam in the order of the end of section 2 of Kingma and Ba 2015.

    m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
    lr_t = lr sqrt(1 - beta2^t) / (1 - beta1^t); w -= lr_t m / (sqrt(v) + eps).

    The paper's 0.001 needs more than twenty epochs on small data sets; 0.002 does not.
    """

    name = "adam"
    state = ("m", "v")

    def __init__(
        self,
        learning_rate: float = 0.002,
        weight_decay: float = 0.0,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.beta1 = number(beta1, "beta1", least=0, below=1)
        self.beta2 = number(beta2, "beta2", least=0, below=1)
        self.epsilon = number(epsilon, "epsilon", least=0)

    def rule(self, t: int, learning_rate: float, dtype: DType) -> Rule:
        """See ``Optimizer.rule``."""
        lr_t = learning_rate * sqrt(1 - self.beta2**t) / (1 - self.beta1**t)
        lr, (eps,) = np.array(lr_t, dtype), _scalars(dtype, self.epsilon)
        beta1, rest1 = _scalars(dtype, self.beta1, 1 - self.beta1)
        beta2, rest2 = _scalars(dtype, self.beta2, 1 - self.beta2)
        decay = self._decay_of_step(learning_rate, dtype)

        def update(w: Array, g: Array, state: Sequence[Array], scratch: Sequence[Array]) -> None:
            (m, v), s = state, scratch[0]
            decay(w, g, s)
            np.multiply(m, beta1, m)
            np.multiply(g, rest1, s)
            np.add(m, s, m)
            np.multiply(v, beta2, v)
            np.multiply(g, g, g)
            np.multiply(g, rest2, g)
            np.add(v, g, v)
            _step_over_root(w, m, v, lr, eps, s)

        return update

    def _decay_of_step(
        self, learning_rate: float, dtype: DType
    ) -> Callable[[Array, Array, Array], None]:
        return self._decay(dtype)


class AdamW(Adam):
    """Adam with decoupled weight decay, w -= lr weight_decay w (Loshchilov and Hutter 2019).

    The decay comes first, as one multiplication by (1 - lr weight_decay), as PyTorch does it;
    algorithm 2 of the paper takes it off the same old w in the sum of the update.
    """

    name = "adamw"

    def __init__(
        self,
        learning_rate: float = 0.002,
        weight_decay: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(learning_rate, weight_decay, beta1, beta2, epsilon)

    def _decay_of_step(
        self, learning_rate: float, dtype: DType
    ) -> Callable[[Array, Array, Array], None]:
        if self.weight_decay == 0:
            return _no_decay
        (keep,) = _scalars(dtype, 1 - learning_rate * self.weight_decay)

        def shrink(w: Array, g: Array, scratch: Array) -> None:
            np.multiply(w, keep, w)

        return shrink


OPTIMIZERS: dict[str, type[Optimizer]] = {
    rule.name: rule for rule in (SGD, Momentum, Nesterov, AdaGrad, RMSProp, Adam, AdamW)
}


def descend(w: Array, g: Array, state: Sequence[Array], scratch: Sequence[Array]) -> None:
    """w -= g: the rule of a plain optimizer where gradients come multiplied by lr."""
    np.subtract(w, g, w)


def _step_over_root(w: Array, d: Array, v: Array, lr: Array, eps: Array, scratch: Array) -> None:
    """w -= lr d / (sqrt(v) + eps)."""
    np.sqrt(v, scratch)
    np.add(scratch, eps, scratch)
    np.divide(d, scratch, scratch)
    np.multiply(scratch, lr, scratch)
    np.subtract(w, scratch, w)


def _no_decay(w: Array, g: Array, scratch: Array) -> None:
    """Leave w and g as they are."""


@lru_cache(64)
def _scalars(dtype: DType, *values: float) -> tuple[Array, ...]:
    """The numbers as 0-d arrays of the vectors' dtype: the cheapest scalars a ufunc can take.

    Read only, and kept: most are the same in every step.
    """
    return tuple(np.array(value, dtype) for value in values)
