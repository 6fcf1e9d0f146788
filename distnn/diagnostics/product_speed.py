"""GFLOP/s of float32 products on one core.

A process of its own, because OpenBLAS looks at the environment when numpy is imported.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping

SIZE = 768  # of the square matrices of the product
SECONDS = 0.4
PATIENCE = 20.0  # seconds for a process of its own, start included


def product_speed(seconds: float = SECONDS) -> float:
    """GFLOP/s of products in this process, the best of those that fit in the time."""
    import numpy as np

    X = np.ones((SIZE, SIZE), np.float32)
    out = np.empty_like(X)
    best, end = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        np.matmul(X, X, out)
        best = min(best, time.perf_counter() - start)
    return float(2 * SIZE**3 / best / 1e9)


def speed_in(environment: Mapping[str, str]) -> float | None:
    """`product_speed` of a process with this environment; None if it does not come to an end."""
    command = [sys.executable, "-P", __file__]  # nothing of the working directory is imported
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        return float(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def without(*names: str) -> dict[str, str]:
    """This process's environment without some variables."""
    return {name: value for name, value in os.environ.items() if name not in names}


if __name__ == "__main__":
    print(product_speed())
