"""Trains from Python, on all ranks there are:

mpirun -n 4 python -m mpi4py examples/train_from_python.py
"""

import numpy as np
from mpi4py import MPI

from distnn import SGD, Network, Trainer

draw = np.random.default_rng(0)
X = draw.uniform(-1, 1, (4000, 2)).astype(np.float32)  # the same on every rank
T = (X[:, 0] * X[:, 1] > 0).astype(int)  # which diagonal of the square: class 0 or 1

net = Network([2, 32, 2], activation="tanh", output="softmax", loss="cross-entropy", seed=0)
trainer = Trainer(net, optimizer=SGD(0.5), batch_size=50, slices=8, seed=0)
trainer.fit(X, T, epochs=20)

if MPI.COMM_WORLD.rank == 0:
    print(f"{np.mean(net.predict(X) == T):.1%} of the points on the right side")
