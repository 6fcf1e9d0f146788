"""scikit-learn's estimators beside distnn's: the same rows, settings and script, in one run.

    mpirun -n 2 python -m mpi4py tests/benchmarks/estimators.py DIAMONDS.npz [--help]

Five real data sets: the bundled digits, diamonds (x_train, y_train, x_test, y_test), Fashion-MNIST
from Debian's dataset-fashion-mnist, breast cancer and wine from scikit-learn. Each round takes
another seed, and times one fit of each contender, one after the other: scikit-learn with one BLAS
thread and with one per rank, distnn on rank 0 alone and on all ranks. Both train in the dtype of
the rows. Prints median seconds, medians of each round's ratio of them,
and the mean accuracy or R2 on the test set with its range over the seeds.
"""

import argparse
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
from machine import machine
from mpi4py import MPI
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import distnn.sklearn
from distnn.data.idx import idx_files, idx_pair

WORLD = MPI.COMM_WORLD
FASHION = Path("/usr/share/datasets/fashion-mnist")
EPOCHS = {"digits": 20, "diamonds": 10, "fashion": 5, "cancer": 40, "wine": 100}
PAIRS = (
    ("scikit-learn 1", "distnn 1"),
    ("scikit-learn 1", "distnn N"),
    ("scikit-learn N", "distnn N"),
)


def data_sets(diamonds):
    """x_train, x_test, y_train, y_test by name; features and prices have mean 0, variance 1."""
    files = idx_files(FASHION)
    parts = (idx_pair(FASHION, files, part) for part in ("train", "test"))
    (X, y), (X_test, y_test) = ((rows.read() for rows in pair) for pair in parts)
    digits = load_npz(Path(distnn.__file__).parent / "data" / "digits.npz")
    prices = load_npz(diamonds)
    log = [np.log(y.astype(float)) for y in prices[2:]]
    found = {
        "digits": digits,
        "diamonds": [*prices[:2], *((y - log[0].mean()) / log[0].std() for y in log)],
        "fashion": [X, X_test, y, y_test],
    }
    for name, load in (("cancer", load_breast_cancer), ("wine", load_wine)):
        found[name] = train_test_split(*load(return_X_y=True), random_state=0)
    return {name: scaled(*arrays) for name, arrays in found.items()}


def load_npz(path):
    with np.load(path) as file:
        return [file[name] for name in ("x_train", "x_test", "y_train", "y_test")]


def scaled(X, X_test, y, y_test):
    scaler = StandardScaler().fit(X.reshape(len(X), -1))
    return *(scaler.transform(part.reshape(len(part), -1)) for part in (X, X_test)), y, y_test


def contenders(name, slices=8):
    """By name: the class, its own arguments, BLAS threads, and whether all ranks call fit."""
    kind = "MLPRegressor" if name == "diamonds" else "MLPClassifier"
    theirs = {"MLPRegressor": MLPRegressor, "MLPClassifier": MLPClassifier}[kind]
    ours = getattr(distnn.sklearn, kind)
    found = {
        "scikit-learn 1": (theirs, {}, 1, False),
        "scikit-learn N": (theirs, {}, WORLD.size, False),
        "distnn 1": (ours, {"comm": MPI.COMM_SELF, "slices": slices}, 1, False),
        "distnn N": (ours, {"slices": slices}, 1, True),
    }
    return {one: how for one, how in found.items() if WORLD.size > 1 or one.endswith("1")}


def pairs():
    """Whose times are compared."""
    return [pair for pair in PAIRS if set(pair) <= set(contenders(""))]


def fitted(contender, arrays, options):
    """Seconds of one fit, and its score on the test set, on rank 0. Collective."""
    kind, own, threads, on_all = contender
    X, X_test, y, y_test = arrays
    meet()
    if on_all:
        WORLD.Barrier()
    elif WORLD.rank:
        return None
    with threadpool_limits(threads):
        start = time.perf_counter()
        model = kind(**options, **own).fit(X, y)
        return time.perf_counter() - start, model.score(X_test, y_test)


def meet():
    """A barrier that leaves the core to others: rank 0 may train alone for long."""
    request = WORLD.Ibarrier()
    while not request.Test():
        time.sleep(0.01)


def measured(name, arrays, options, flags):
    """(seconds, score) of each round by contender, on rank 0."""
    measurable = contenders(name, flags.slices)
    found = {one: [] for one in measurable}
    for seed in range(flags.rounds):
        for one, contender in measurable.items():
            found[one].append(fitted(contender, arrays, options | {"random_state": seed}))
    return found


def row(found):
    """Median seconds of all, the ratios of `pairs`, and the scores of both."""
    seconds = {one: [s for s, _ in results] for one, results in found.items()}
    cells = [f"{statistics.median(each):.3f}" for each in seconds.values()]
    for slow, fast in pairs():
        ratios = [a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)]
        cells.append(f"{statistics.median(ratios):.2f}x")
    for one in ("scikit-learn 1", "distnn 1"):
        scores = [score for _, score in found[one]]
        cells.append(f"{statistics.mean(scores):.4f} ({min(scores):.4f} to {max(scores):.4f})")
    ours = [[score for _, score in found[one]] for one in found if one.startswith("distnn")]
    assert ours[0] == ours[-1]  # on all ranks the same bits as on one
    return cells


def main():
    parser = argparse.ArgumentParser(description="scikit-learn's estimators beside distnn's")
    parser.add_argument("diamonds", type=Path)
    parser.add_argument("--data", nargs="+", default=list(EPOCHS))
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[64, 200, 1000])
    parser.add_argument("--hidden", nargs="+", type=int, default=[100])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slices", type=int, default=8)
    flags = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    arrays = data_sets(flags.diamonds)
    if WORLD.rank == 0:
        print(machine())
        ratios = [f"{a} / {b}" for a, b in pairs()]
        head = ["data", "batch", *contenders(""), *ratios, "scikit-learn's score", "distnn's"]
        print(
            f"N = {WORLD.size}, {flags.dtype}, hidden {flags.hidden}, {flags.slices} slices, ",
            end="",
        )
        print(f"{flags.rounds} rounds\n")
        print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|", flush=True)
    for name in flags.data:
        X, X_test, *targets = arrays[name]
        these = (X.astype(flags.dtype), X_test.astype(flags.dtype), *targets)
        for size in sorted({min(size, len(X)) for size in flags.batch_sizes}):
            epochs = EPOCHS[name]  # all of them
            options = {"hidden_layer_sizes": flags.hidden, "batch_size": size, "max_iter": epochs,
                       "n_iter_no_change": epochs}  # fmt: skip
            found = measured(name, these, options, flags)
            if WORLD.rank == 0:
                print(f"| {name} | {size} | {' | '.join(row(found))} |", flush=True)


if __name__ == "__main__":
    main()
