"""A convolutional network of PyTorch, on CPUs, on all ranks there are:

mpirun -n 4 python -m mpi4py examples/gradient_torch.py

Needs PyTorch: pip install torch. Its parameters are written from theta before each slice, and
their gradients are read after it.
"""

import hashlib
import sys

try:
    import torch
except ImportError:
    sys.exit("PyTorch is not installed: pip install torch")
import numpy as np
from mpi4py import MPI
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from distnn import Adam, GradientTrainer

torch.set_num_threads(1)  # ranks are the threads
torch.manual_seed(0)
N = 600
draw = np.random.default_rng(0)
labels = torch.from_numpy(draw.integers(0, 2, N))
images = torch.from_numpy(draw.normal(size=(N, 1, 8, 8)).astype(np.float32))
images[labels == 1, :, 3:5, :] += 1  # a bar across, or along
images[labels == 0, :, :, 3:5] += 1

net = torch.nn.Sequential(
    torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 2)
)
parameters = list(net.parameters())


def gradient(theta, rows):
    vector_to_parameters(torch.from_numpy(theta.copy()), parameters)
    rows = torch.from_numpy(rows)
    loss = torch.nn.functional.cross_entropy(net(images[rows]), labels[rows], reduction="sum")
    found = torch.autograd.grad(loss, parameters)
    return loss.item(), torch.cat([one.reshape(-1) for one in found]).numpy()


start = parameters_to_vector(parameters).detach().numpy()
trainer = GradientTrainer(start, gradient, N, Adam(0.003), batch_size=48)
history = trainer.fit(epochs=4)
if MPI.COMM_WORLD.rank == 0:
    print(f"loss of the last epoch {history[-1]['train_loss']:.4f}")
    print("sha256", hashlib.sha256(trainer.theta.tobytes()).hexdigest())
