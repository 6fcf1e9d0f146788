"""Is the same thing being timed? distnn and PyTorch from the same weights over the same batches.

    python tests/benchmarks/same_results.py [--steps 20]

For each network of the comparison and each optimizer: how far the weights are apart after so many
steps in float32, relative to the largest weight; beside it how far each is from distnn in float64.
Adam without its epsilon, which distnn adds where the end of section 2 of the paper has it, and
PyTorch where algorithm 1 has it. With relu, a net input next to 0 may fall on its other side by
rounding, and the item then changes other weights: in float32 of either.
"""

import argparse

import numpy as np
import torch
from compare import NETWORKS
from torch import nn
from workers import RATES

from distnn import SGD, Adam, Network, Trainer
from distnn.data.order import epoch_order
from distnn.diagnostics.steps import Case

UNITS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}
OURS = {"sgd": SGD(RATES["sgd"]), "adam": Adam(RATES["adam"], epsilon=1e-30)}
SEED = 0


def data(case, steps):
    """Rows and labels of so many batches."""
    rng = np.random.default_rng(0)
    items = steps * case.batch
    X = rng.standard_normal((items, case.layers[0]), np.float32)
    return X, rng.integers(0, case.layers[-1], items)


def ours(case, optimizer, X, T, dtype):
    """The weights after one pass of distnn, and those it began with."""
    net = Network(case.layers, activation=case.activation, dtype=dtype, seed=SEED)
    start = [W.copy() for W in net.weights]
    Trainer(net, OURS[optimizer], batch_size=case.batch, seed=SEED).fit(X, T, epochs=1)
    return net.weights, start


def theirs(case, optimizer, X, T, start):
    """The weights after the same batches in PyTorch, as distnn holds them."""
    torch.set_num_threads(1)
    parts = []
    for n_in, n_out in zip(case.layers, case.layers[1:], strict=False):
        parts += [nn.Linear(n_in, n_out), UNITS[case.activation]()]
    model = nn.Sequential(*parts[:-1])
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer, W in zip(layers, start, strict=True):
            layer.weight.copy_(torch.from_numpy(W[1:].T.copy()))
            layer.bias.copy_(torch.from_numpy(W[0].copy()))
    if optimizer == "sgd":
        rule = torch.optim.SGD(model.parameters(), RATES[optimizer])
    else:
        rule = torch.optim.Adam(model.parameters(), RATES[optimizer], eps=1e-30, fused=True)
    order = np.empty(len(X), np.intp)
    epoch_order(len(X), SEED, 0, order)
    loss = nn.CrossEntropyLoss()
    for rows in order.reshape(-1, case.batch):
        rule.zero_grad()
        loss(model(torch.from_numpy(X[rows])), torch.from_numpy(T[rows])).backward()
        rule.step()
    with torch.no_grad():
        return [np.vstack([layer.bias.numpy()[None], layer.weight.numpy().T]) for layer in layers]


def apart(one, other):
    """The largest difference of two sets of weights, relative to the largest weight."""
    largest = max(float(np.abs(W).max()) for W in one)
    return max(float(np.abs(V - W).max()) for V, W in zip(one, other, strict=True)) / largest


def main():
    parser = argparse.ArgumentParser(description="distnn and PyTorch compute the same")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--networks", default=NETWORKS)
    flags = parser.parse_args()
    print("| network, optimizer | distnn - PyTorch | distnn - float64 | PyTorch - float64 |")
    print("|---|---|---|---|")
    for case in Case.all_of(flags.networks):
        for optimizer in OURS:
            X, T = data(case, flags.steps)
            single, start = ours(case, optimizer, X, T, "float32")
            double, _ = ours(case, optimizer, X, T, "float64")
            torchs = theirs(case, optimizer, X, T, start)
            name = f"{'-'.join(map(str, case.layers))}, {case.batch}, {optimizer}"
            cells = (apart(single, torchs), apart(double, single), apart(double, torchs))
            print(f"| {name} | " + " | ".join(f"{cell:.1e}" for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
