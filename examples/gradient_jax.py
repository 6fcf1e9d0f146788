"""A function of JAX, differentiated there and trained here, on all ranks there are:

mpirun -n 4 python -m mpi4py examples/gradient_jax.py

Needs JAX: pip install jax. Each rank compiles the function for the lengths of its slices.
"""

import hashlib
import os
import sys

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")  # ranks are the threads

try:
    import jax
    import jax.numpy as jnp
except ImportError:
    sys.exit("JAX is not installed: pip install jax")
import numpy as np
from mpi4py import MPI

from distnn import Adam, GradientTrainer

N = 1000
draw = np.random.default_rng(0)
X = draw.uniform(-2, 2, (N, 1)).astype(np.float32)
Y = np.sin(3 * X[:, 0])


def loss_sum(theta, x, y):
    """Squared error of a small network of sines, summed over the rows."""
    w, b, v = theta[:32], theta[32:64], theta[64:]
    return ((jnp.sin(x * w + b) @ v - y) ** 2).sum()


compiled = jax.jit(jax.value_and_grad(loss_sum))


def gradient(theta, rows):
    return compiled(np.array(theta), X[rows], Y[rows])


theta = draw.normal(size=96).astype(np.float32)
trainer = GradientTrainer(theta, gradient, N, Adam(0.01), batch_size=80)
history = trainer.fit(epochs=20)
if MPI.COMM_WORLD.rank == 0:
    print(f"loss of the last epoch {history[-1]['train_loss']:.4f}")
    print("sha256", hashlib.sha256(trainer.theta.tobytes()).hexdigest())
