"""A small task for tests of the trainer: rows, class numbers, a network for them."""

from typing import Any

import numpy as np

from distnn import Network

CLASSES = 3


def rows(n: int, features: int = 4) -> np.ndarray:
    return np.random.default_rng(n).normal(size=(n, features))


def classes(n: int) -> np.ndarray:
    return np.random.default_rng(n + 1).integers(0, CLASSES, n)


def network(dtype: str = "float64", **changes: Any) -> Network:
    return Network(**({"layers": [4, 6, CLASSES], "activation": "tanh", "dtype": dtype} | changes))


def bits(net: Network) -> bytes:
    return b"".join(W.tobytes() for W in net.weights)
