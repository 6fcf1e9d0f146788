"""Logistic regression on sparse rows with a million features, on all ranks there are:

mpirun -n 4 python -m mpi4py examples/gradient_sparse.py [RUN_DIR]

Each row has some 20 of the features. They are kept as scipy's CSR arrays are: where each row's
features begin, their numbers, and their values.
"""

import hashlib
import sys

import numpy as np
from mpi4py import MPI

from distnn import AdaGrad, GradientTrainer

N, FEATURES, PER_ROW = 4000, 1_000_000, 20
draw = np.random.default_rng(0)
numbers = (FEATURES * draw.random((N, PER_ROW)) ** 8).astype(np.intp)  # few are frequent
values = draw.normal(size=(N, PER_ROW)).astype(np.float32)
truth = draw.normal(size=FEATURES).astype(np.float32)
labels = ((values * truth[numbers]).sum(axis=1) > 0).astype(np.float32)
starts = PER_ROW * np.arange(N + 1)
numbers, values = numbers.reshape(-1), values.reshape(-1)


def gradient(theta, rows):
    """ln(1 + exp(-z)) for label 1, ln(1 + exp(z)) for label 0, summed, and the gradient of it."""
    lengths = starts[rows + 1] - starts[rows]
    row = np.repeat(np.arange(len(rows)), lengths)  # (nonzeros,) of which row each is
    first = np.repeat(starts[rows] - np.concatenate([[0], lengths.cumsum()[:-1]]), lengths)
    where = (first + np.arange(len(row))).astype(np.intp)
    z = np.bincount(row, values[where] * theta[numbers[where]], len(rows))
    loss = np.logaddexp(0, z) - labels[rows] * z
    d = 1 / (1 + np.exp(-z)) - labels[rows]
    sums = np.bincount(numbers[where], values[where] * d[row], FEATURES)
    return loss.sum(), sums.astype(theta.dtype)


if __name__ == "__main__":
    options = {"run_dir": sys.argv[1], "resume": True} if len(sys.argv) > 1 else {}
    theta = np.zeros(FEATURES, np.float32)
    trainer = GradientTrainer(theta, gradient, N, AdaGrad(0.5), batch_size=1000, **options)
    history = trainer.fit(epochs=3)
    if MPI.COMM_WORLD.rank == 0:
        if history:
            print(f"loss of the last epoch {history[-1]['train_loss']:.3f}")
        print("sha256", hashlib.sha256(trainer.theta.tobytes()).hexdigest())
