"""A dense network through GradientTrainer beside the built-in path: mpirun -n 2 python FILE.

The callback makes the passes of distnn.nn itself, over the slice that it is given; the built-in
path puts a rank's slices into one pass. So the first figures are with a slice per rank, which is
a pass per step on both sides, the second with the default of 8. Both trainings are in one
process and take turns; prints medians of microseconds per step, and of the ratio of each turn.
"""

import statistics
import sys
import time

from distnn.blas_threads import default_to_one

default_to_one()

import numpy as np  # noqa: E402
from compare import NETWORKS  # noqa: E402
from machine import machine  # noqa: E402

from distnn import Adam, GradientTrainer, Network, Trainer  # noqa: E402
from distnn.diagnostics.steps import Case  # noqa: E402
from distnn.nn.backprop import BackwardPass, Share, SlicePass  # noqa: E402
from distnn.nn.layout import aligned  # noqa: E402
from distnn.parallel.comm.shared_memory import SharedMemory  # noqa: E402
from distnn.training.arrays import from_arrays  # noqa: E402

ITEMS = 4096
ROUNDS = 15
SECONDS = 0.4  # of a turn


class Dense:
    """The gradient of a dense network: what a caller would write with distnn.nn."""

    def __init__(self, case, X, T):
        self.network = Network(case.layers, case.activation, seed=0)
        self.run = SlicePass(self.network, case.batch)
        self.vector = aligned((self.network.size,), np.float32)
        self.gradients = self.network.views(self.vector)
        self.X = np.hstack([np.ones((len(X), 1), np.float32), X])
        self.T, self.one = np.eye(case.layers[-1], dtype=np.float32)[T], np.array(1, np.float32)
        self.theta, self.passes = None, {}

    def __call__(self, theta, rows):
        if theta is not self.theta:
            self.network.bind(theta)
            self.theta = theta
        A0, T = self.run.input(len(rows)), self.run.target(len(rows))
        self.X.take(rows, 0, A0, "clip")
        self.T.take(rows, 0, T, "clip")
        loss = self.run.forward(A0, T)
        if len(rows) not in self.passes:
            share = Share(self.run.factors(A0), self.gradients, ())
            self.passes[len(rows)] = BackwardPass([self.run], [share])
        self.passes[len(rows)].run(self.one)
        return loss, self.vector


def turn(session, steps):
    """Seconds per step."""
    position = session.position
    session.comm.mpi.Barrier()
    start = time.perf_counter()
    for _ in range(steps):
        if position.step == ITEMS // session.config.batch_size:
            position.step = 0
        session.step()
    session.comm.mpi.Barrier()
    return (time.perf_counter() - start) / steps


def measured(case, slices):
    """Microseconds per step built in, through the class, and their ratio: medians."""
    draw = np.random.default_rng(0)
    X = draw.standard_normal((ITEMS, case.layers[0]), np.float32)
    T = draw.integers(0, case.layers[-1], ITEMS)
    options = {"batch_size": case.batch, "slices": slices}
    network, dense = Network(case.layers, case.activation, seed=0), Dense(case, X, T)
    built_in = Trainer(network, Adam(), **options)
    own = GradientTrainer(network.vector, dense, ITEMS, Adam(), **options)
    comm = built_in.comm
    memory = SharedMemory(comm)
    samples = from_arrays(comm, memory, network, X, T)
    sessions = [built_in.open_session(comm, samples), own.open_session(comm)]
    for session in sessions:
        session.begin_epoch(epochs=1)
        turn(session, 3)
    steps = comm.largest(int(max(2, SECONDS / turn(sessions[0], 3))))
    rounds = []
    for number in range(ROUNDS):
        order = (0, 1) if number % 2 else (1, 0)
        times = {which: turn(sessions[which], steps) for which in order}
        rounds.append((1e6 * times[0], 1e6 * times[1], times[1] / times[0]))
    for session in sessions:
        session.close()
    memory.close()
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def main():
    comm = Trainer(Network([1, 1], output="identity", loss="half-squared-error")).comm
    if comm.is_first:
        print(f"{machine()}; {comm.size} ranks\n")
        print(
            "| network, batch | slices | built in | own gradient | ratio |\n|---|---|---|---|---|"
        )
    for case in Case.all_of(sys.argv[1] if len(sys.argv) > 1 else NETWORKS):
        for slices in (comm.size, 8):
            with np.errstate(all="ignore"):
                before, after, ratio = measured(case, slices)
            if comm.is_first:
                name = f"{'-'.join(map(str, case.layers))} {case.activation}, {case.batch}"
                print(
                    f"| {name} | {slices} | {before:,.0f} | {after:,.0f} | {ratio:.3f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
