"""Arrays that exist once per node and that every rank of the node reads and writes directly."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike

from distnn.errors import DistnnError
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI

WINDOW = 1 << 18  # bytes of the smallest: making one takes as long as many small steps
PAGE = 4096  # pages, so that the rank that first writes an array has it in its own memory


@dataclass(frozen=True)
class ArraySpec:
    """`count` arrays of one shape and dtype: what `SharedMemory.arrays` allocates.

    `needed_bytes` of the same specs says what a node needs before any memory is taken.
    """

    count: int
    shape: tuple[int, ...]
    dtype: DTypeLike

    @property
    def array_bytes(self) -> int:
        """Bytes of one array."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def stride(self) -> int:
        """Bytes from one array to the next: whole pages."""
        return -(-self.array_bytes // PAGE) * PAGE

    @property
    def bytes(self) -> int:
        """Bytes that are allocated for all: a page more, so that the first starts on a page."""
        return self.count * self.stride + PAGE


def needed_bytes(specs: Iterable[ArraySpec]) -> int:
    """What a node needs for these arrays."""
    return sum(spec.bytes for spec in specs)


class SharedMemory:
    """Allocates arrays that a node's ranks share, and frees them all at once.

    Reading what another rank wrote takes a barrier in between (see `barrier`), which holds the
    fences that the memory model of MPI's shared windows asks for.
    """

    def __init__(self, comm: Communicator) -> None:
        self.comm = comm
        self._windows: list[MPI.Win] = []
        self._rest = np.empty(0, np.uint8)  # of the last window

    def arrays(self, spec: ArraySpec) -> list[np.ndarray]:
        """Zero-filled arrays, the same memory on every rank of the node.

        Collective over the node. Each array starts on a page of its own.
        """
        memory = self._allocate(spec.bytes)
        starts = [number * spec.stride for number in range(spec.count)]
        parts = [memory[start : start + spec.array_bytes] for start in starts]
        return [part.view(spec.dtype).reshape(spec.shape) for part in parts]

    def array(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """One array, as `arrays`."""
        return self.arrays(ArraySpec(1, shape, dtype))[0]

    @staticmethod
    def private(size: int, dtype: DTypeLike) -> np.ndarray:
        """An array (size,) of this rank's own, zero-filled, that starts on a page."""
        n_bytes = size * np.dtype(dtype).itemsize
        return _from_page(np.zeros(n_bytes + PAGE, np.uint8)).view(dtype)

    def sync(self) -> None:
        """A memory fence: what other ranks wrote before a barrier is seen after it.

        MPI asks for one call per window; in MPICH and Open MPI each call fences all memory.
        """
        if self._windows:
            self._windows[0].Sync()

    def close(self) -> None:
        """Give the memory back. Collective over the node; no array may be used afterwards."""
        with self.comm.status.waiting():
            for window in self._windows:
                window.Unlock_all()
                window.Free()
        self._windows.clear()
        self._rest = np.empty(0, np.uint8)

    def _allocate(self, size: int) -> np.ndarray:
        """From `size` bytes those after the first page's start; private for a rank alone."""
        if self.comm.node_size == 1:
            return _from_page(np.zeros(size, np.uint8))
        if size > len(self._rest):
            self._rest = self._window(max(size, WINDOW))
        part, self._rest = self._rest[:size], self._rest[size:]
        return _from_page(part)

    def _window(self, size: int) -> np.ndarray:
        """`size` bytes of a window of their own."""
        own = size if self.comm.node_rank == 0 else 0
        comm = cast("MPI.Intracomm", self.comm.node_comm)
        with self.comm.status.waiting():
            window = MPI.Win.Allocate_shared(own, 1, comm=comm)
            window.Lock_all(MPI.MODE_NOCHECK)
        self._windows.append(window)
        buffer, _ = window.Shared_query(0)
        return np.asarray(memoryview(cast(Any, buffer)), np.uint8)[:size]


def _from_page(memory: np.ndarray) -> np.ndarray:
    """Bytes without what lies before their first page, a page less in all."""
    start = -memory.ctypes.data % PAGE
    return memory[start : start + len(memory) - PAGE]


@contextmanager
def closing(memory: SharedMemory) -> Iterator[None]:
    """Close `memory` after the work, and after an error that is raised on every rank.

    After any other error this rank is alone with it, and must not wait for the others.
    """
    try:
        yield
    except DistnnError:
        memory.close()
        raise
    memory.close()
