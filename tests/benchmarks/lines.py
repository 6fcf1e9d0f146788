"""What it costs to write cache lines that another rank has read, by the way it read them.

    mpirun -n 2 python tests/benchmarks/lines.py

Rank 0 computes ``w -= g`` on a vector that stays in a core's cache; rank 1 reads ``w`` before.
Prints rank 0's microseconds and, in brackets, rank 1's: medians.
"""

import sys
import time
from collections.abc import Callable

import numpy as np

from distnn.parallel.comm.barrier import Barrier
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.shared_memory import SharedMemory
from distnn.parallel.reduction.cache_lines import lines_of, take

SIZES = (24_000, 102_000)
ROUNDS = 10  # cores may come closer to one another, or part, from second to second
TIMES = 50


def main() -> int:
    """Measure on the first two ranks of a node; rank 0 prints."""
    comm = Communicator()
    if comm.node_size < 2:
        print("start at least 2 ranks on one machine: mpirun -n 2 python ...", file=sys.stderr)
        return 2
    for size in SIZES:
        for name, (writing, reading) in measure(comm, size).items():
            if comm.is_first:
                print(f"{size:,} weights {name}: {writing:.1f} ({reading:.1f})", flush=True)
    return 0


def measure(comm: Communicator, size: int) -> dict[str, tuple[float, float]]:
    """Collective. Medians by the way of reading: to write and to read."""
    memory = SharedMemory(comm)
    barrier, w, seconds = (
        Barrier(memory),
        memory.array((size,), np.float32),
        memory.array((2,), float),
    )
    g, result = np.zeros(size, np.float32), np.empty(size, np.float32)
    lines = lines_of(w)

    def write() -> None:
        np.subtract(w, g, w)

    def take_and_write() -> None:
        take(lines)
        write()

    def nothing() -> None:
        pass

    def read() -> None:
        np.add(w, g, result)

    def take_and_read() -> None:
        take(lines)
        read()

    ways: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        "not read": (write, nothing),
        "read": (write, read),
        "read, taken by the writer": (take_and_write, read),
        "taken by the reader": (write, take_and_read),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (writes, reads) in ways.items():
            for _ in range(TIMES):
                for rank, work in ((1, reads), (0, writes)):
                    barrier.wait()
                    if comm.node_rank == rank:
                        start = time.perf_counter()
                        work()
                        seconds[rank] = (time.perf_counter() - start) * 1e6
                barrier.wait()
                found[name].append((float(seconds[0]), float(seconds[1])))
    memory.close()
    medians = {name: np.median(pairs, axis=0) for name, pairs in found.items()}
    return {name: (float(pair[0]), float(pair[1])) for name, pair in medians.items()}


if __name__ == "__main__":
    sys.exit(main())
