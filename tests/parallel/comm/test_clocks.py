"""The clocks of ranks that are nodes of their own, set apart from the one clock they have."""

import time

import numpy as np
import pytest

from distnn.parallel.comm import clocks
from distnn.parallel.comm.clocks import Offset
from distnn.parallel.comm.communicator import Communicator

APART = 10**12  # ns between one rank's clock and the next one's


@pytest.mark.mpi
def test_offsets_are_found_to_the_error_that_is_said() -> None:
    comm = Communicator(shared=False)
    found = clocks.measure(comm, lambda: time.perf_counter_ns() + comm.rank * APART)
    if comm.is_first:
        assert len(found) == comm.size
        for rank, offset in enumerate(found):
            assert abs(offset.ahead - rank * APART) <= offset.error < 10_000_000


def test_a_clock_that_drifts_is_aligned_at_both_ends_and_between() -> None:
    true = np.array([1000, 1500, 2000])
    read = true + 5_000 + (true - 1000) // 10  # 5000 ahead at 1000, 100 more at 2000
    aligned = clocks.aligned(read, Offset(1000, 5_000, 9), Offset(2000, 5_100, 9))
    assert np.abs(aligned - true).max() <= 6  # the slope is by the true time, not by the read one
