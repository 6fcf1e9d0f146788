"""The heat equation over a grid that is divided among ranks trains a surrogate as it runs:

mpirun -n 4 python -m mpi4py examples/simulation.py           # all ranks do both in turn
mpirun -n 4 python -m mpi4py examples/simulation.py --apart   # the last rank trains meanwhile

The surrogate learns to go LEAP steps at once, from the cells around each. At the end it takes the
solver's place, and its error is printed, and drawn to heat.png where matplotlib is installed.

In turn, the result depends on the numbers of the rows alone: the sha256 is that of any number of
ranks, here at most 16. With --apart it depends also on which rows have arrived when an epoch
begins; rows that find IN_FLIGHT messages under way are not sent, so that the solver never waits.
"""

import hashlib
import sys

import numpy as np
from mpi4py import MPI

from distnn import Adam, Network, Reservoir, Trainer

CELLS, NU, LEAP, REACH = 240, 0.2, 8, 8  # REACH: a cell after LEAP steps knows of so many beside it
LEAPS, EVERY, EPOCHS = 200, 20, 10  # leaps of the solver; between two trainings; epochs of each
WIDTH, IN_FLIGHT = 1 + 2 * REACH, 4
world = MPI.COMM_WORLD


class Strip:
    """The cells lo ... hi of a ring, on one of the ranks that simulate."""

    def __init__(self, comm):
        self.comm = comm
        self.lo, self.hi = (CELLS * (comm.rank + k) // comm.size for k in (0, 1))
        x = np.arange(self.lo, self.hi) * 2 * np.pi / CELLS
        self.u = np.sin(x) + 0.5 * np.sin(5 * x) + 0.25 * np.cos(11 * x)

    def with_halo(self, reach):
        """The cells, and those of the neighbours beside them."""
        left, right = (self.comm.rank + k for k in (-1, 1))
        before, after = np.empty(reach), np.empty(reach)
        size = self.comm.size
        self.comm.Sendrecv(self.u[-reach:].copy(), right % size, 0, before, left % size, 0)
        self.comm.Sendrecv(self.u[:reach].copy(), left % size, 1, after, right % size, 1)
        return np.concatenate([before, self.u, after])

    def windows(self):
        """(cells, WIDTH) the surrogate's rows: how the cells around each differ from it."""
        around = np.lib.stride_tricks.sliding_window_view(self.with_halo(REACH), WIDTH)
        return around - self.u[:, None]

    def leap(self, leap):
        """LEAP steps of the solver, with some heat that comes and goes."""
        cells = np.arange(self.lo, self.hi)
        self.u = self.u + 0.5 * np.exp(-(((cells - 37 * leap) % CELLS - 20) ** 2) / 30)
        rows, before = self.windows(), self.u
        self.steps(LEAP)
        return leap * CELLS + cells, rows, self.u - before

    def steps(self, count):
        for _ in range(count):
            u = self.with_halo(1)
            self.u = u[1:-1] + NU * (u[2:] - 2 * u[1:-1] + u[:-2])


def surrogate():
    return Network([WIDTH, 32, 1], "tanh", "identity", "squared-error", seed=0)


def in_turn():
    """Every rank simulates, and all train together every so many leaps."""
    strip, net, rows = Strip(world), surrogate(), Reservoir(2000, WIDTH)
    trainer = Trainer(net, Adam(0.002), batch_size=64, slices=16, comm=world)
    for leap in range(LEAPS):
        rows.add(*strip.leap(leap))
        if leap % EVERY == EVERY - 1:
            _, X, T = rows.sample(world)
            trainer.fit(X, T, EPOCHS)
    return strip, net


def apart():
    """The last rank trains; the others simulate, and send rows without waiting."""
    trains = world.rank == world.size - 1
    comm, net = world.Split(int(trains), world.rank), surrogate()
    strip = None if trains else Strip(comm)
    if trains:
        learn(comm, net)
    else:
        under_way = []
        for leap in range(LEAPS):
            numbers, X, T = strip.leap(leap)
            under_way = [(request, m) for request, m in under_way if not request.Test()]
            if len(under_way) < IN_FLIGHT:
                message = np.column_stack([numbers, X, T])  # kept until it has been sent
                under_way.append((world.Isend(message, world.size - 1, 0), message))
        end = np.empty((0, WIDTH + 2))
        last = world.Isend(end, world.size - 1, 0)
        MPI.Request.Waitall([*(request for request, _ in under_way), last])
    world.Bcast(net.vector, world.size - 1)
    return strip, net


def learn(comm, net):
    """Train on what has arrived, until every other rank has sent its last, empty message."""
    rows, ended, status = Reservoir(2000, WIDTH), 0, MPI.Status()
    trainer = Trainer(net, Adam(0.002), batch_size=64, slices=16, comm=comm)
    epochs = 0
    while ended < world.size - 1 or epochs < LEAPS // EVERY * EPOCHS:
        senders = world.size - 1
        while ended < senders and (len(rows) == 0 or world.Iprobe(MPI.ANY_SOURCE, 0, status)):
            world.Probe(MPI.ANY_SOURCE, 0, status)
            message = np.empty((status.Get_count(MPI.DOUBLE) // (WIDTH + 2), WIDTH + 2))
            world.Recv(message, status.Get_source(), 0)
            ended += len(message) == 0
            rows.add(message[:, 0], message[:, 1:-1], message[:, -1])
        _, X, T = rows.sample(comm)
        trainer.fit(X, T, 1)
        epochs += 1


def compare(strip, net):
    """Both from the same state: what solver and surrogate make of it, and the largest error."""
    start = strip.u.copy()
    for _ in range(5):
        strip.u = strip.u + net.forward(strip.windows())[:, 0]
    ours, strip.u = strip.u, start
    strip.steps(5 * LEAP)
    both = [np.concatenate(strip.comm.allgather(u)) for u in (strip.u, ours)]
    return both, np.abs(both[0] - both[1]).max()


def draw(solver, ours):
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    _, (above, below) = pyplot.subplots(2, sharex=True)
    above.plot(solver, label="solver")
    above.plot(ours, "--", label="surrogate")
    above.legend()
    below.plot(ours - solver, label="error")
    below.legend()
    pyplot.savefig("heat.png")


if __name__ == "__main__":
    if "--apart" in sys.argv and world.size < 2:
        sys.exit("--apart takes at least two ranks")
    strip, net = apart() if "--apart" in sys.argv else in_turn()
    if strip is not None:
        (solver, ours), error = compare(strip, net)
        if world.rank == 0:
            print(f"after 40 steps: largest error {error:.4f}, range {np.ptp(solver):.2f}")
            print("sha256", hashlib.sha256(net.vector.tobytes()).hexdigest())
            draw(solver, ours)
