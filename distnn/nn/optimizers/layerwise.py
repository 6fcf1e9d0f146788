"""Rules for large batches that hold each layer's step in proportion to its weights.

Both scale the update of a layer by the norm of its weights over that of the update, so that all
layers change by about the same share in a step. The norms are of the weights without their bias
row; bias rows begin at zero, where such a share means nothing, and take the rule that lies below
(momentum, Adam) as it is, without weight decay: both papers' implementations exclude them.
"""

from collections.abc import Sequence
from math import sqrt

import numpy as np

from distnn.checks import number
from distnn.nn.layout import Array
from distnn.nn.optimizers.base import (
    DType,
    Optimizer,
    Rule,
    blocks,
    scalars,
    step_over_root,
    sum_of_squares,
)


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling (You, Gitman and Ginsburg 2017, algorithm 1).

    r = trust |w| / (|g| + weight_decay |w|); v = mu v + lr r (g + weight_decay w); w -= v.
    r is 1 where a norm is 0. Bias row: v = mu v + lr g; w -= v.

    For weights only the product lr trust counts. The paper takes a trust of 0.001 and rates of 2
    to 30; with 0.02 the same products belong to rates as momentum has, which bias rows need.
    """

    name = "lars"
    state = ("v",)
    scope = "matrix"

    def __init__(
        self,
        learning_rate: float = 0.1,
        weight_decay: float = 0.0005,
        momentum: float = 0.9,
        trust: float = 0.02,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.momentum = number(momentum, "momentum", least=0, below=1)
        self.trust = number(trust, "trust", least=0)

    def rule(self, t: int, learning_rate: float, dtype: DType) -> Rule:
        """See ``Optimizer.rule``; for a whole matrix."""
        (mu,), (decay,) = scalars(dtype, self.momentum), scalars(dtype, self.weight_decay)
        of_bias = np.array(learning_rate, dtype)

        def update(W: Array, G: Array, state: Sequence[Array], scratch: Sequence[Array]) -> None:
            (V,) = state
            size_w, size_g = _norm(W[1:]), _norm(G[1:])
            ratio = 1.0
            if size_w > 0 and size_g > 0:
                ratio = self.trust * size_w / (size_g + self.weight_decay * size_w)
            rate = np.array(learning_rate * ratio, dtype)
            for w, g, v, s in blocks(W[1:], G[1:], V[1:], scratch[0][1:]):
                np.multiply(w, decay, s)
                np.add(g, s, g)
                _momentum_step(w, g, v, mu, rate)
            _momentum_step(W[0], G[0], V[0], mu, of_bias)

        return update


class LAMB(Optimizer):
    """Layer-wise adaptive moments for batch training (You et al. 2020, algorithm 2).

    m, v as in Adam; r = m^ / (sqrt(v^) + eps) + weight_decay w; w -= lr (|w| / |r|) r.
    The quotient is 1 where a norm is 0. Bias row: Adam, w -= lr m^ / (sqrt(v^) + eps).

    The default rate is that of the paper for ResNet-50 at its smallest batch, 512; a weight changes
    by this share of its layer's norm in a step.
    """

    name = "lamb"
    state = ("m", "v")
    scope = "matrix"

    def __init__(
        self,
        learning_rate: float = 0.005,
        weight_decay: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-6,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.beta1 = number(beta1, "beta1", least=0, below=1)
        self.beta2 = number(beta2, "beta2", least=0, below=1)
        self.epsilon = number(epsilon, "epsilon", least=0)

    def rule(self, t: int, learning_rate: float, dtype: DType) -> Rule:
        """See ``Optimizer.rule``; for a whole matrix."""
        root = sqrt(1 - self.beta2**t)  # sqrt(v^) + eps = (sqrt(v) + eps root) / root
        correction = np.array(root / (1 - self.beta1**t), dtype)
        eps = np.array(self.epsilon * root, dtype)
        beta1, rest1 = scalars(dtype, self.beta1, 1 - self.beta1)
        beta2, rest2 = scalars(dtype, self.beta2, 1 - self.beta2)
        (decay,) = scalars(dtype, self.weight_decay)
        of_bias = np.array(learning_rate * root / (1 - self.beta1**t), dtype)

        def moments(g: Array, m: Array, v: Array, s: Array) -> None:
            np.multiply(m, beta1, m)
            np.multiply(g, rest1, s)
            np.add(m, s, m)
            np.multiply(v, beta2, v)
            np.multiply(g, g, g)
            np.multiply(g, rest2, g)
            np.add(v, g, v)

        def update(W: Array, G: Array, state: Sequence[Array], scratch: Sequence[Array]) -> None:
            M, V = state
            size_w = size_r = 0.0
            for w, g, m, v, s in blocks(W[1:], G[1:], M[1:], V[1:], scratch[0][1:]):
                moments(g, m, v, s)
                np.sqrt(v, s)
                np.add(s, eps, s)
                np.divide(m, s, g)
                np.multiply(g, correction, g)
                np.multiply(w, decay, s)
                np.add(g, s, g)  # r, where the gradient was
                size_w += sum_of_squares(w)
                size_r += sum_of_squares(g)
            ratio = sqrt(size_w / size_r) if size_w > 0 and size_r > 0 else 1.0
            rate = np.array(learning_rate * ratio, dtype)
            for w, r in blocks(W[1:], G[1:]):
                np.multiply(r, rate, r)
                np.subtract(w, r, w)
            moments(G[0], M[0], V[0], scratch[0][0])
            step_over_root(W[0], M[0], V[0], of_bias, eps, scratch[0][0])

        return update


def _norm(matrix: Array) -> float:
    """The Frobenius norm, added up block by block."""
    return sqrt(sum(sum_of_squares(block) for (block,) in blocks(matrix)))


def _momentum_step(w: Array, g: Array, v: Array, mu: Array, rate: Array) -> None:
    """v = mu v + rate g; w -= v."""
    np.multiply(v, mu, v)
    np.multiply(g, rate, g)
    np.add(v, g, v)
    np.subtract(w, v, w)
