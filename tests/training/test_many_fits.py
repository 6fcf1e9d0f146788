"""Fit after fit takes nothing that is not given back, where shared memory is too small, too."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from small import classes, network, rows

from distnn import Trainer
from distnn.parallel.comm import communicator as communicator_module
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI

FITS = 15  # of each of two times


def in_use() -> dict[str, int]:
    """Descriptors, mapped files (windows among them), MPI's next communicator, memory in pages."""
    next_one = MPI.COMM_WORLD.Dup()
    handle = MPI.Comm.py2f(next_one) & 0xFFFFFFFF  # MPICH's are numbered
    next_one.Free()
    maps = Path("/proc/self/maps").read_text().splitlines()
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "files": sum("/" in line for line in maps),
        "communicator": handle,
        "pages": int(Path("/proc/self/statm").read_text().split()[1]),
    }


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("where", ["shared memory", "too little of it", "a node per rank"])
@pytest.mark.parametrize("trainers", ["one trainer", "a trainer per fit"])
def test_nothing_grows(where: str, trainers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "too little of it":
        monkeypatch.setattr(communicator_module, "shared_memory_room", lambda: 0)
    comm = Communicator(shared=False) if where == "a node per rank" else None
    X, T = rows(40), classes(40)

    def trainer() -> Trainer:
        return Trainer(network(), batch_size=8, slices=MPI.COMM_WORLD.size, comm=comm)

    one = trainer()

    def fits(number: int) -> dict[str, int]:
        for _ in range(number):
            (one if trainers == "one trainer" else trainer()).fit(X, T, 1)
        return in_use()

    seen = [fits(number) for number in (5, FITS, FITS)]
    grown = {name: seen[2][name] - seen[0][name] for name in seen[0] if name != "pages"}
    # a freed number is not always the next one, but one kept per fit would add up
    assert all(number < FITS for number in grown.values()), grown
    # the allocator takes some MB at once, at any time; what each fit keeps is seen both times
    pages = min(b["pages"] - a["pages"] for a, b in pairwise(seen))
    assert pages * os.sysconf("SC_PAGE_SIZE") < FITS * 40_000  # the vectors of a fit, at least
    assert np.isfinite(one.fit(X, T, 1)[0]["train_loss"])
