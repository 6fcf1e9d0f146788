"""The limit of a step on this machine: its matrix products alone, and one pass over memory.

Products are timed at their best: operands in cache, in whichever layout is quickest for the
shape. What sum and update must touch (every rank's gradient
once, weights and optimizer state read and written) is timed as one copy of as many bytes.
"""

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from distnn.nn import products
from distnn.nn.network import Network

QUICK = 200e-6  # seconds that one reading of the clock should cover at least
ENOUGH = 0.05  # seconds after which the best time is taken for the best there is


Way = tuple[int, tuple[int, int, int]]
"""So many products (m, k) @ (k, n)."""


def products_of_pass(network: Network, rows: int, slices: int = 1) -> list[list[Way]]:
    """All products of one pass over slices of `rows` items, each with the ways to make it.

    Where all slices have one right factor, their rows may go together.
    """
    found = []
    for l, (n_in, n_out) in enumerate(network.shapes, 1):
        found.append(_ways(rows, n_in, n_out, slices))  # Z = A @ W
        found.append([(slices, (n_in, rows, n_out))])  # dW = A.T @ D
        if l > 1:
            found.append(_ways(rows, n_out, n_in - 1, slices))  # D = D @ W[1:].T
    return found


def _ways(rows: int, k: int, n: int, slices: int) -> list[Way]:
    one_by_one, together = (slices, (rows, k, n)), (1, (slices * rows, k, n))
    return [one_by_one] if slices == 1 else [one_by_one, together]


def product_seconds(m: int, k: int, n: int, network: Network) -> float:
    """The best time of a product of these sizes in the network's precision."""
    rng = np.random.default_rng(0)
    ways = products.arithmetic(network.precision)
    X, Y = (ways.factor(rng.random(size).astype(network.dtype)) for size in ((m, k), (k, n)))
    out = np.empty((m, n), network.dtype)
    times = []
    for left in (X, np.asfortranarray(X)):
        for right in (Y, np.asfortranarray(Y)):
            times.append(best(partial(ways.product, left, right, out)))
    return min(times)


def copy_seconds(n_bytes: int) -> float:
    """The best time in which `n_bytes` are read and written, half and half."""
    source, target = np.ones(n_bytes // 2, np.uint8), np.ones(n_bytes // 2, np.uint8)
    return best(lambda: np.copyto(target, source))


def bytes_of_update(network: Network, vectors: int, gradients: int) -> int:
    """What sum and update touch: gradients once; weights and state read and written.

    Args:
        vectors: the weights and the optimizer's state vectors.
        gradients: vectors to be added up.
    """
    return (gradients + 2 * vectors) * network.size * network.dtype.itemsize


def best(work: Callable[[], object]) -> float:
    """The shortest time of one call."""
    start = time.perf_counter()
    work()
    calls = 1 + int(QUICK / max(time.perf_counter() - start, 1e-7))
    shortest, spent = np.inf, 0.0
    while spent < ENOUGH:
        start = time.perf_counter()
        for _ in range(calls):
            work()
        seconds = time.perf_counter() - start
        shortest, spent = min(shortest, seconds / calls), spent + seconds
    return shortest
