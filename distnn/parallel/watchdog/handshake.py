"""The first message between ranks: that each is there, a digest of its arguments, or a problem.

Each receives it from each other one directly, so that a rank that waits can name those missing. It
is a collective of MPI, so that it cannot be taken for a message of the caller's.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from distnn.errors import DistnnError, InputError
from distnn.parallel.comm.mpi import MPI
from distnn.parallel.watchdog.reports import REPORT_SECONDS, write_report
from distnn.parallel.watchdog.start import StartGuard, not_arrived
from distnn.parallel.watchdog.watchdog import end_job

PRESENT, PROBLEM, DIGEST = range(3)
POLLS = 100  # some 50 us
NAP = 0.0005  # seconds
SHORT_LIMIT = 1.0  # seconds beyond the stall timeout, because a watchdog that runs can say more
TURN = 3.0  # seconds that the lowest rank has to report, and end the job, before the others do


@contextmanager
def handshake(
    base: "MPI.Intracomm", where: str, seconds: float, problem: DistnnError | None, digest: int
) -> Iterator[bool]:
    """All ranks exchange the message; the context begins when all have it. Collective.

    Args:
        where: what all are about to do, for the message that names who is missing.
        seconds: the stall timeout. After it, without all ranks here, and if the context is not
            left in that time again, the job ends.
        problem: why this rank cannot go on.
        digest: of what must be the same on every rank, where there is no problem; below 2**63.

    Yields:
        Whether the digests are equal.

    Raises:
        InputError: on every rank, the problem of the lowest rank that has one, with its number.
    """
    if base.size == 1:
        if problem is not None:
            raise problem
        yield True
        return
    text = b"" if problem is None else str(problem).encode()
    table = _exchange(base, where, seconds, [1, len(text), digest])
    guard = StartGuard(seconds, apart=False)
    try:
        culprits = np.flatnonzero(table[:, PROBLEM]).tolist()
        if culprits:
            _raise_problem(base, culprits, text, int(table[culprits[0], PROBLEM]), problem)
        yield len(set(table[:, DIGEST].tolist())) == 1
    finally:
        guard.close()


def _raise_problem(
    base: "MPI.Intracomm", culprits: list[int], text: bytes, size: int, own: DistnnError | None
) -> None:
    first = culprits[0]
    data = np.frombuffer(text, np.uint8).copy() if base.rank == first else np.empty(size, np.uint8)
    base.Bcast(data, first)
    message = data.tobytes().decode()
    if len(culprits) == base.size:
        raise own or InputError(message)  # a mistake of the program, not of one rank
    raise InputError(f"{message} (on rank {first})")


def _exchange(base: "MPI.Intracomm", where: str, seconds: float, numbers: list[int]) -> np.ndarray:
    """(size, 3) the numbers of every rank."""
    size, width = base.size, len(numbers)
    own = np.array([numbers] * size, np.int64)
    table = np.zeros((size, width), np.int64)
    layout = [width] * size, [width * rank for rank in range(size)]
    request = base.Ialltoallv([own, *layout, MPI.INT64_T], [table, *layout, MPI.INT64_T])
    waited, polls = 0.0, 0
    while not request.Test():
        polls += 1
        if polls < POLLS:
            continue
        start = time.monotonic()
        time.sleep(NAP)
        waited += min(time.monotonic() - start, 1.0)  # a job may have been suspended
        missing = np.flatnonzero(table[:, PRESENT] == 0).tolist()
        is_lowest = not (table[: base.rank, PRESENT] == 1).any()
        if waited > seconds + SHORT_LIMIT + (0 if is_lowest else TURN):
            write_report(not_arrived(missing, where, seconds))
            time.sleep(REPORT_SECONDS)
            end_job(1)
    return table
