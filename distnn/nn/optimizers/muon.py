"""Muon: momentum whose matrices are made orthogonal before the step."""

from collections.abc import Sequence
from math import sqrt

import numpy as np

from distnn.checks import number
from distnn.nn.layout import Array
from distnn.nn.optimizers.base import DType, Optimizer, Rule, by_blocks, scalars, sum_of_squares
from distnn.nn.optimizers.elementwise import AdamW

A, B, C = 3.4445, -4.7750, 2.0315
"""Coefficients of the odd polynomial a x + b x^3 + c x^5 that moves singular values towards 1."""
ITERATIONS = 5
TINY = 1e-7  # added to the norm


class Muon(Optimizer):
    """Momentum, orthogonalised by Newton-Schulz (Jordan et al. 2024).

    From kellerjordan.github.io/posts/muon, with Nesterov's momentum:

    V = mu V + G; U = orthogonalised(G + mu V);
    W -= lr sqrt(max(1, n_out / n_in)) U, after W = (1 - lr weight_decay) W.

    As published, this serves matrices of hidden layers; bias rows and the matrix of the output
    layer take AdamW, at the share `adam_share` of the learning rate, with beta1 = 0.9,
    beta2 = 0.95 and eps = 1e-10. The first layer of a dense network sees all its inputs at once,
    unlike an embedding, and counts as hidden. The iteration runs in the precision of the weights,
    where the original has bfloat16. State: ``m`` is V, or Adam's m; ``v`` is Adam's alone.
    """

    name = "muon"
    state = ("m", "v")
    scope = "matrix"
    scratch = 3

    def __init__(
        self,
        learning_rate: float = 0.02,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        adam_share: float = 0.1,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.momentum = number(momentum, "momentum", least=0, below=1)
        self.adam_share = number(adam_share, "adam_share", least=0)

    def rule(self, t: int, learning_rate: float, dtype: DType) -> Rule:
        """See ``Optimizer.rule``; for the whole matrix of a layer that is not the last."""
        (mu,) = scalars(dtype, self.momentum)
        (keep,) = scalars(dtype, 1 - learning_rate * self.weight_decay)
        of_bias = self._adam(t, learning_rate, dtype)

        def update(W: Array, G: Array, state: Sequence[Array], scratch: Sequence[Array]) -> None:
            w, g, v = W[1:], G[1:], state[0][1:]
            X = scratch[0][1:]
            np.multiply(v, mu, v)
            np.add(v, g, v)
            np.multiply(v, mu, X)
            np.add(X, g, X)
            U = orthogonalise(X, g, scratch[1][1:], scratch[2][1:])
            n_in, n_out = w.shape
            rate = np.array(learning_rate * sqrt(max(1.0, n_out / n_in)), dtype)
            np.multiply(w, keep, w)
            np.multiply(U, rate, U)
            np.subtract(w, U, w)
            of_bias(W[0], G[0], [each[0] for each in state], [each[0] for each in scratch])

        return update

    def rules(self, t: int, learning_rate: float, dtype: DType, layers: int) -> list[Rule]:
        """See ``Optimizer.rules``: the last layer's is AdamW."""
        of_hidden = [self.rule(t, learning_rate, dtype)] * (layers - 1)
        return [*of_hidden, by_blocks(self._adam(t, learning_rate, dtype))]

    def _adam(self, t: int, learning_rate: float, dtype: DType) -> Rule:
        rate = learning_rate * self.adam_share
        adam = AdamW(rate, self.weight_decay, beta1=0.9, beta2=0.95, epsilon=1e-10)
        return adam.rule(t, rate, dtype)


def orthogonalise(X: Array, Y: Array, P: Array, Q: Array) -> Array:
    """About U V^T of the singular value decomposition X = U S V^T, by five steps of

    X = a X + (b P + c P P) X,  P = X X^T, from X / |X|; for a matrix with more rows than columns
    by X (b P + c P P) with P = X^T X, which has the smaller products.

    Args:
        X: (n, m); overwritten. Y, P, Q: scratch of the same size; C-contiguous all.

    Returns:
        The result, in X or in Y.
    """
    n, m = X.shape
    k = min(n, m)
    P, Q = (each.reshape(-1)[: k * k].reshape(k, k) for each in (P, Q))
    a, b, c = scalars(X.dtype, A, B, C)
    np.multiply(X, X.dtype.type(1 / (sqrt(sum_of_squares(X.reshape(-1))) + TINY)), X)
    for _ in range(ITERATIONS):
        if n <= m:
            np.matmul(X, X.T, out=P)
        else:
            np.matmul(X.T, X, out=P)
        np.matmul(P, P, out=Q)
        np.multiply(Q, c, Q)
        np.multiply(P, b, P)
        np.add(P, Q, P)
        if n <= m:
            np.matmul(P, X, out=Y)
        else:
            np.matmul(X, P, out=Y)
        np.multiply(X, a, X)
        np.add(Y, X, Y)
        X, Y = Y, X
    return X
