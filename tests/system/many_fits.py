"""Fit after fit in one program: what does it keep?

    mpirun -n 2 python tests/system/many_fits.py [FITS]     by default 2,000

A new trainer for every second fit, every fourth one with files, and every other hundred as where
shared memory is too small. After each hundred, rank 0 prints what the ranks have in use, at most.
It must be the same after the last fit as after the second hundred. Memory grows by what the MPI
itself keeps of a window that was freed: MPICH 5.0.2 some 300 bytes, and 1 to 3 kB a fit in all;
with Open MPI 5 it stays.
"""

import logging
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from distnn import Network, Trainer
from distnn.parallel.comm import communicator
from distnn.parallel.comm.mpi import MPI

GROUP = 100
MEMORY = 4096  # resident bytes that a fit may leave behind, see above


def in_use() -> dict[str, int]:
    """Descriptors, mapped files (windows are), MPI's next communicator, resident bytes."""
    next_one = MPI.COMM_WORLD.Dup()
    handle = MPI.Comm.py2f(next_one) & 0xFFFFFFFF  # MPICH's and Open MPI's are numbered
    next_one.Free()
    lines = Path("/proc/self/maps").read_text().splitlines()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "mapped files": sum("/" in line for line in lines),
        "communicator": handle,
        "memory": pages * os.sysconf("SC_PAGE_SIZE"),
    }


def fits(count: int, run_dir: Path) -> list[dict[str, int]]:
    """What is in use after each group of so many fits."""
    rng = np.random.default_rng(0)
    X, T = rng.normal(size=(40, 4)), np.arange(40) % 3
    room = communicator.shared_memory_room
    options = {"batch_size": 8, "slices": 2}
    trainer = Trainer(Network([4, 5, 3]), **options)
    found = []
    for number in range(count):
        is_small = number // GROUP % 2 == 1
        communicator.shared_memory_room = (lambda: 0) if is_small else room
        if number % 2 == 0:
            # a run directory can be fitted into again only by the trainer that made it
            folder = run_dir / str(number) if number % 4 == 0 else None
            trainer = Trainer(Network([4, 5, 3]), run_dir=folder and str(folder), **options)
        trainer.fit(X, T, 1)
        if (number + 1) % GROUP == 0:
            most = in_use()
            found.append({name: MPI.COMM_WORLD.allreduce(n, MPI.MAX) for name, n in most.items()})
            if MPI.COMM_WORLD.rank == 0:
                print(number + 1, found[-1], flush=True)
    return found


def main(count: int) -> None:
    logging.getLogger("distnn").setLevel(logging.ERROR)  # not that shared memory is too small
    folder = MPI.COMM_WORLD.bcast(tempfile.mkdtemp())
    found = fits(count, Path(folder))
    grown = {name: found[-1][name] - found[1][name] for name in found[0]}
    if MPI.COMM_WORLD.rank == 0:
        print("grown since the second group:", grown)
    is_memory_kept = grown.pop("memory") <= MEMORY * count
    sys.exit(not is_memory_kept or any(value > 0 for value in grown.values()))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
