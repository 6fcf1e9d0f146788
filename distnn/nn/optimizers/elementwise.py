"""Element-wise rules: SGD and what follows from it, AdaGrad, RMSProp, Adam and its relatives."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import sqrt

import numpy as np

from distnn.checks import number
from distnn.nn.layout import Array
from distnn.nn.optimizers.base import (
    DType,
    Optimizer,
    Rule,
    no_decay,
    scalars,
    step_over_root,
)


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
        (lr,) = scalars(dtype, learning_rate)
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
        (lr,), (mu,) = scalars(dtype, learning_rate), scalars(dtype, self.momentum)
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
        (lr,), (mu,) = scalars(dtype, learning_rate), scalars(dtype, self.momentum)
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
        (lr,), (eps,) = scalars(dtype, learning_rate), scalars(dtype, self.epsilon)
        decay = self._decay(dtype)

        def update(w: Array, g: Array, state: Sequence[Array], scratch: Sequence[Array]) -> None:
            (n,), s = state, scratch[0]
            decay(w, g, s)
            np.multiply(g, g, s)
            np.add(n, s, n)
            step_over_root(w, g, n, lr, eps, s)

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
        (lr,), (eps,) = scalars(dtype, learning_rate), scalars(dtype, self.epsilon)
        rho, rest = scalars(dtype, self.rho, 1 - self.rho)
        decay = self._decay(dtype)

        def update(w: Array, g: Array, state: Sequence[Array], scratch: Sequence[Array]) -> None:
            (v,), s = state, scratch[0]
            decay(w, g, s)
            np.multiply(v, rho, v)
            np.multiply(g, g, s)
            np.multiply(s, rest, s)
            np.add(v, s, v)
            step_over_root(w, g, v, lr, eps, s)

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
        lr, (eps,) = np.array(lr_t, dtype), scalars(dtype, self.epsilon)
        beta1, rest1 = scalars(dtype, self.beta1, 1 - self.beta1)
        beta2, rest2 = scalars(dtype, self.beta2, 1 - self.beta2)
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
            step_over_root(w, m, v, lr, eps, s)

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
            return no_decay
        (keep,) = scalars(dtype, 1 - learning_rate * self.weight_decay)

        def shrink(w: Array, g: Array, scratch: Array) -> None:
            np.multiply(w, keep, w)

        return shrink


class NAdamW(AdamW):
    """Adam with Nesterov's momentum (Dozat 2016) and decoupled weight decay, as PyTorch's NAdam.

    mu_t = beta1 (1 - 0.96^(t psi) / 2), psi = 0.004; m, v as in Adam;
    m^ = mu_{t+1} m / (1 - mu_1 ... mu_{t+1}) + (1 - mu_t) g / (1 - mu_1 ... mu_t);
    w = (1 - lr weight_decay) w - lr m^ / (sqrt(v / (1 - beta2^t)) + eps).
    """

    name = "nadamw"

    def __init__(
        self,
        learning_rate: float = 0.002,
        weight_decay: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        momentum_decay: float = 0.004,
    ) -> None:
        super().__init__(learning_rate, weight_decay, beta1, beta2, epsilon)
        self.momentum_decay = number(momentum_decay, "momentum_decay", least=0)

    def rule(self, t: int, learning_rate: float, dtype: DType) -> Rule:
        """See ``Optimizer.rule``."""
        root = sqrt(1 - self.beta2**t)  # sqrt(v^) + eps = (sqrt(v) + eps root) / root
        products = _momentum_products(self.beta1, self.momentum_decay)
        now, later = products[min(t, len(products)) - 1], products[min(t + 1, len(products)) - 1]
        mu = _momentum_of_step(self.beta1, self.momentum_decay, t)
        mu_later = _momentum_of_step(self.beta1, self.momentum_decay, t + 1)
        of_m = np.array(learning_rate * root * mu_later / (1 - later), dtype)
        of_g = np.array(learning_rate * root * (1 - mu) / (1 - now), dtype)
        eps, one = np.array(self.epsilon * root, dtype), scalars(dtype, 1)[0]
        beta1, rest1 = scalars(dtype, self.beta1, 1 - self.beta1)
        beta2, rest2 = scalars(dtype, self.beta2, 1 - self.beta2)
        decay = self._decay_of_step(learning_rate, dtype)

        def update(w: Array, g: Array, state: Sequence[Array], scratch: Sequence[Array]) -> None:
            (m, v), s, ahead = state, scratch[0], scratch[1]
            decay(w, g, s)
            np.multiply(m, beta1, m)
            np.multiply(g, rest1, s)
            np.add(m, s, m)
            np.multiply(v, beta2, v)
            np.multiply(g, g, s)
            np.multiply(s, rest2, s)
            np.add(v, s, v)
            np.multiply(m, of_m, ahead)
            np.multiply(g, of_g, g)
            np.add(ahead, g, ahead)
            step_over_root(w, ahead, v, one, eps, s)

        return update


def _momentum_of_step(beta1: float, decay: float, t: int) -> float:
    return beta1 * (1 - 0.5 * 0.96 ** (t * decay))


@lru_cache(8)
def _momentum_products(beta1: float, decay: float) -> list[float]:
    """mu_1 ... mu_t for t = 1, 2, ... until 1 less the product is 1."""
    products = [_momentum_of_step(beta1, decay, 1)]
    while products[-1] > 1e-17:
        products.append(products[-1] * _momentum_of_step(beta1, decay, len(products) + 1))
    return products
