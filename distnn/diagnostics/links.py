"""What MPI is and how fast its messages are, for `distnn.doctor`."""

import time

import numpy as np

from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI


def mpi_library() -> str:
    """The MPI library and its version, one line."""
    return MPI.Get_library_version().replace("\0", "").split("\n")[0].strip()


def texts(comm: Communicator, text: str) -> list[str]:
    """Every rank's text, on every rank. Collective."""
    data = np.frombuffer(text.encode(), np.uint8)
    counts = np.zeros(comm.size, np.int64)
    counts[comm.rank] = len(data)
    comm.mpi.Allreduce(MPI.IN_PLACE, counts)
    whole = np.empty(int(counts.sum()), np.uint8)
    comm.mpi.Allgatherv(data, [whole, counts.tolist()])
    ends = np.cumsum(counts).tolist()
    return [
        whole[end - count : end].tobytes().decode()
        for end, count in zip(ends, counts.tolist(), strict=True)
    ]


def one_way(comm: Communicator, first: int, second: int, size: int, rounds: int) -> float:
    """Seconds that a message of `size` bytes takes between two ranks: the median. Collective."""
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
