"""Where the gradients of a rank's slices go, and which of their sums the node can read.

Attributes of both ways to do it:

    tasks         this rank's slices, and what to add after each (`tree.SliceTask`)
    vectors       this rank's gradient vectors (n,), numbered as in `tasks`
    partial_sums  vectors that this rank can read once all ranks have arrived, by the node of the
                  tree each is the sum of; with the root among them nothing is left to be added
"""

from typing import Any

import numpy as np

from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.parallel.comm.shared_memory import ArraySpec, SharedMemory
from distnn.parallel.reduction import tree
from distnn.parallel.reduction.ownership import Ownership


class SharedGradients:
    """For the ordered sum: each rank's pieces of the tree, where the node's ranks can read them."""

    def __init__(self, memory: SharedMemory, own: Ownership, size: int, dtype: Any) -> None:
        comm = memory.comm
        nodes = own.rank_pieces(comm.node)
        spec = self.spec(own, comm.node, size, dtype)
        arrays = memory.arrays(spec)
        self.partial_sums = dict(zip(nodes, arrays, strict=True))
        self.tasks, count = tree.slice_tasks(*own.run(comm.rank), own.slices)
        self.vectors = [self.partial_sums[piece] for piece in own.pieces(comm.rank)]
        self.vectors += [np.zeros(size, dtype) for _ in range(count - len(self.vectors))]

    @staticmethod
    def spec(own: Ownership, node: int, size: int, dtype: Any) -> ArraySpec:
        """What a node shares for them."""
        return ArraySpec(len(own.rank_pieces(node)), (size,), dtype)


class PrivateGradients:
    """For MPI's own sum: each rank adds up its run of slices as a tree of its own."""

    def __init__(self, comm: Communicator, own: Ownership, size: int, dtype: Any) -> None:
        self._comm = comm
        lo, hi = own.run(comm.rank)
        tasks, count = tree.slice_tasks(0, hi - lo, hi - lo)
        self.tasks = [task._replace(slice=lo + task.slice) for task in tasks]
        self.vectors = [np.zeros(size, dtype) for _ in range(count)]
        self.partial_sums = {(0, own.slices): self.vectors[0]}

    def allreduce(self) -> None:
        """The sum over all ranks, in every rank's own vector. Collective."""
        with self._comm.status.waiting():
            self._comm.mpi.Allreduce(MPI.IN_PLACE, self.vectors[0])
