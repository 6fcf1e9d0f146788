"""Arrays that exist once per node: what one rank writes, the others of its node read."""

import numpy as np
import pytest

from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.shared_memory import (
    PAGE,
    WINDOW,
    ArraySpec,
    SharedMemory,
    needed_bytes,
)

pytestmark = pytest.mark.mpi


def test_arrays_start_as_zeros_on_pages_of_their_own(memory: SharedMemory) -> None:
    arrays = memory.arrays(ArraySpec(3, (5, 7), np.float32))
    assert [a.shape for a in arrays] == [(5, 7)] * 3
    assert [a.dtype for a in arrays] == [np.float32] * 3
    assert not any(a.any() for a in arrays)
    starts = [a.ctypes.data for a in arrays]
    assert [start % PAGE for start in starts] == [0] * 3
    assert np.diff(starts).min() >= PAGE


@pytest.mark.parametrize("shape", [(1,), (0,), (PAGE,), (PAGE + 1,), (5, 7), (WINDOW,)])
def test_what_is_needed_is_what_is_allocated(comm: Communicator, shape: tuple[int, ...]) -> None:
    memory = SharedMemory(comm)
    specs = [ArraySpec(3, shape, np.uint8), ArraySpec(0, shape, np.int64)]
    for spec in specs:
        memory.arrays(spec)
    if comm.node_size > 1:  # of the window of the leader
        sizes = [len(memoryview(window.Shared_query(0)[0])) for window in memory._windows]
        assert needed_bytes(specs) <= sum(sizes) <= needed_bytes(specs) + WINDOW
    memory.close()


def test_small_arrays_come_out_of_one_window(comm: Communicator) -> None:
    memory = SharedMemory(comm)
    arrays = [memory.array((n,), np.uint8) for n in (10, WINDOW // 2, 3 * WINDOW, 20, 30)]
    assert len(memory._windows) == (3 if comm.node_size > 1 else 0)
    for number, array in enumerate(arrays):
        if comm.node_rank == 0:
            array[:] = number + 1
    memory.sync()
    comm.node_comm.Barrier()
    memory.sync()
    assert [set(array.tolist()) for array in arrays] == [{1}, {2}, {3}, {4}, {5}]
    memory.close()


def test_what_a_rank_writes_its_node_reads_and_no_other(memory: SharedMemory) -> None:
    comm = memory.comm
    array = memory.array((comm.node_size, 3), np.int64)
    array[comm.node_rank] = 100 * comm.node + comm.node_rank
    memory.sync()
    comm.node_comm.Barrier()
    memory.sync()
    expected = 100 * comm.node + np.arange(comm.node_size)
    assert np.array_equal(array, np.repeat(expected[:, None], 3, axis=1))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (4, 0)])
def test_empty_arrays(memory: SharedMemory, shape: tuple[int, ...]) -> None:
    assert memory.array(shape, np.float64).shape == shape


def test_no_arrays(memory: SharedMemory) -> None:
    assert memory.arrays(ArraySpec(0, (10,), np.float32)) == []


def test_sizes_that_differ_between_nodes(memory: SharedMemory) -> None:
    array = memory.array((1000 * memory.comm.node + 1,), np.float32)
    assert array.shape == (1000 * memory.comm.node + 1,)


def test_a_rank_alone_has_private_memory() -> None:
    memory = SharedMemory(Communicator(shared=False))
    array = memory.array((3,), np.float32)
    array[:] = memory.comm.rank
    memory.comm.mpi.Barrier()
    assert np.array_equal(array, np.full(3, memory.comm.rank))
    assert memory._windows == []
    memory.close()


def test_closed_and_used_again(memory: SharedMemory) -> None:
    for _ in range(3):
        memory.array((100,), np.float32)
        memory.close()
    assert memory.array((2,), np.float32).tolist() == [0, 0]
