"""How fast messages are between two ranks, for `distnn.doctor`."""

import time

import numpy as np

from distnn.parallel.comm.communicator import Communicator


def one_way(comm: Communicator, first: int, second: int, size: int, rounds: int) -> float:
    """Seconds that a message of `size` bytes takes between two ranks: the median.

    Collective: all other ranks wait.
    """
    message = np.zeros(size, np.uint8)
    seconds = np.zeros(1)
    comm.mpi.Barrier()
    if comm.rank in (first, second):
        times = []
        for _ in range(rounds + 1):  # the first one sets the connection up
            start = time.perf_counter()
            if comm.rank == first:
                comm.mpi.Send(message, second)
                comm.mpi.Recv(message, second)
            else:
                comm.mpi.Recv(message, first)
                comm.mpi.Send(message, first)
            times.append(time.perf_counter() - start)
        seconds[0] = np.median(times[1:]) / 2
    comm.mpi.Bcast(seconds, first)
    return float(seconds[0])
