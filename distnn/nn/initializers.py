"""Initial weights, drawn from (seed, layer): the same whatever the ranks, and per layer.

Numbers are drawn in float64 and rounded, so a float32 network starts where its float64 twin does.
The bias, row 0, starts at 0, except with "normal".
"""

from collections.abc import Callable
from math import sqrt

import numpy as np

from distnn.nn.layout import Array

Initializer = Callable[["np.random.Generator", Array], None]


def glorot(rng: "np.random.Generator", W: Array) -> None:
    """U(-r, r), r = sqrt(6 / (n_in + n_out)) (Glorot and Bengio 2010, eq. 16)."""
    n_in, n_out = W.shape[0] - 1, W.shape[1]
    r = sqrt(6 / (n_in + n_out))
    W[0] = 0
    W[1:] = rng.uniform(-r, r, (n_in, n_out))


def he(rng: "np.random.Generator", W: Array) -> None:
    """N(0, 2 / n_in) (He, Zhang, Ren and Sun 2015, eq. 10)."""
    _normal_by_fan_in(rng, W, 2)


def lecun(rng: "np.random.Generator", W: Array) -> None:
    """N(0, 1 / n_in) (LeCun, Bottou, Orr and Mueller 1998, eq. 16)."""
    _normal_by_fan_in(rng, W, 1)


def normal(rng: "np.random.Generator", W: Array) -> None:
    """N(0, 1) for weights and bias."""
    W[...] = rng.standard_normal(W.shape)


def _normal_by_fan_in(rng: "np.random.Generator", W: Array, gain: float) -> None:
    n_in, n_out = W.shape[0] - 1, W.shape[1]
    W[0] = 0
    W[1:] = rng.standard_normal((n_in, n_out)) * sqrt(gain / n_in)


INITIALIZERS: dict[str, Initializer] = {
    "glorot": glorot,
    "he": he,
    "lecun": lecun,
    "normal": normal,
}
