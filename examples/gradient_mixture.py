"""A mixture of Gaussians, fitted by its own gradient on all ranks there are:

mpirun -n 4 python -m mpi4py examples/gradient_mixture.py [RUN_DIR]

The model is no network: theta holds the logits, centres and logarithms of the widths of K round
Gaussians. With RUN_DIR the script may be killed and run again, on other ranks, too.
"""

import hashlib
import sys

import numpy as np
from mpi4py import MPI

from distnn import Adam, GradientTrainer

K, D, N = 3, 2, 3000
draw = np.random.default_rng(0)
CENTRES = np.array([[-3.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
X = CENTRES[draw.integers(0, K, N)] + draw.normal(size=(N, D)) * 0.5  # the same on every rank


def gradient(theta, rows):
    """-log p of some rows, summed, and its gradient: responsibilities times each part's own."""
    logits, centres, widths = theta[:K], theta[K : K + K * D].reshape(K, D), theta[K + K * D :]
    difference = X[rows][:, None] - centres  # (b, K, D)
    square = (difference**2).sum(axis=2) * np.exp(-2 * widths)
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    log_p = np.log(shares) - 0.5 * square - D * (widths + 0.5 * np.log(2 * np.pi))  # (b, K)
    largest = log_p.max(axis=1, keepdims=True)
    total = np.log(np.exp(log_p - largest).sum(axis=1, keepdims=True)) + largest
    r = np.exp(log_p - total)  # (b, K) responsibilities
    of_centres = -(r[:, :, None] * difference).sum(axis=0) * np.exp(-2 * widths)[:, None]
    of_widths = -(r * (square - D)).sum(axis=0)
    of_logits = -(r - shares).sum(axis=0)
    return -total.sum(), np.concatenate([of_logits, of_centres.reshape(-1), of_widths])


if __name__ == "__main__":
    theta = np.concatenate([np.zeros(K), [-1, 0, 1, 0, 0, 1], np.zeros(K)])  # some start
    options = {"run_dir": sys.argv[1], "resume": True} if len(sys.argv) > 1 else {}
    trainer = GradientTrainer(theta, gradient, N, Adam(0.02), batch_size=100, **options)
    trainer.fit(epochs=20)
    if MPI.COMM_WORLD.rank == 0:
        print("centres:", trainer.theta[K : K + K * D].reshape(K, D).round(1).tolist())
        print("sha256", hashlib.sha256(trainer.theta.tobytes()).hexdigest())
