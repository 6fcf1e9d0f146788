"""Products of a training step, by numpy, oneDNN and MKL, and by oneDNN in bfloat16.

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python tests/benchmarks/products.py [SECONDS]

Microseconds for all products of one step over so many rows, one thread, each library in turns, the
least of SECONDS (2) per network. bfloat16 is without rounding, which stands in a column of its own
for weights, activations and sensitivities of a step.
"""

import os
import sys
import time

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402 - after the number of threads is set

from distnn.errors import InputError  # noqa: E402
from distnn.nn import Network, products  # noqa: E402
from distnn.run.fingerprint import fingerprint  # noqa: E402

CASES = [
    (rows, layers)
    for layers in ((784, 30, 10), (784, 128, 10), (784, 512, 512, 10), (784, 2048, 2048, 10))
    for rows in (16, 64, 256, 1024)
]


def arithmetics():
    """By name, and what each calls itself."""
    found, names = {}, []
    for name in ("numpy", "onednn", "mkl"):
        try:
            products.use(name)
        except InputError:
            continue
        found[name] = products.arithmetic("float32")
        names.append(products.in_use())
        if products.multiplies_bfloat16():
            found["bfloat16"] = products.arithmetic("bfloat16")
    return found, names


def operands(arithmetic, rows, layers):
    """(X, Y, out) of every product of a step."""
    rng = np.random.default_rng(0)
    found = []
    for l, W in enumerate(Network(layers).weights, 1):
        k, n = W.shape
        A, D = (rng.standard_normal((rows, size), np.float32) for size in (k, n))
        A, D, W = (arithmetic.factor(one) for one in (A, D, W))
        found.append((A, W, np.empty((rows, n), np.float32)))
        found.append((A.T, D, np.empty((k, n), np.float32)))
        if l > 1:
            found.append((D, W[1:].T, np.empty((rows, k - 1), np.float32)))
    return found


def roundings(arithmetic, rows, layers):
    """(X, out) of all that is rounded in a step."""
    sizes = [W.shape for W in Network(layers).weights]
    sizes += [(rows, n) for n in layers] + [(rows, n) for n in layers[1:]]
    return [(np.ones(size, np.float32), np.empty(size, arithmetic.dtype)) for size in sizes]


def least(works, seconds):
    """The shortest time of each, in turns."""
    times, end = dict.fromkeys(works, np.inf), time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, (function, calls) in works.items():
            start = time.perf_counter()
            for arguments in calls:
                function(*arguments)
            times[name] = min(times[name], time.perf_counter() - start)
    return times


def main(seconds=2.0):
    found, names = arithmetics()
    here = fingerprint()
    print(f"{here['cpu']}; {here['blas_version']} {here['blas_kernel']}; {'; '.join(names[1:])}")
    print(f"{'network, rows':<28}" + "".join(f"{name:>10}" for name in (*found, "rounding")))
    for rows, layers in CASES:
        works = {name: (one.product, operands(one, rows, layers)) for name, one in found.items()}
        if "bfloat16" in found:
            one = found["bfloat16"]
            works["rounding"] = one.round, roundings(one, rows, layers)
        times = least(works, seconds)
        cells = "".join(f"{value * 1e6:10.0f}" for value in times.values())
        print(f"{'-'.join(map(str, layers)) + ', ' + str(rows):<28}{cells}", flush=True)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
