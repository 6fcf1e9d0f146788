"""How the gradients of all slices become one: the ways to do it, by name.

A reduction gives a rank its slices and the vectors to compute them into, and says which sums of
slices can be read on this node once all ranks have met.
"""

from typing import Any, Protocol

import numpy as np

from distnn.parallel.comm.mpi import MPI
from distnn.parallel.comm.shared_memory import ArraySpec, SharedMemory
from distnn.parallel.reduction import tree
from distnn.parallel.reduction.ownership import Ownership


class Reduction(Protocol):
    """One rank's part in the sum over slices.

    Attributes:
        tasks: the rank's slices and what to add after each.
        vectors: the rank's gradient vectors (n,), numbered as in `tasks`.
        partial_sums: vectors that this rank can read after the meeting, by the node of the tree
            each is the sum of. With the root among them, nothing is left to be added.
    """

    tasks: list[tree.SliceTask]
    vectors: list[np.ndarray]
    partial_sums: dict[tree.Node, np.ndarray]

    def join(self) -> None:
        """What the ranks do together when all slices are done, before they meet. Collective."""
        ...


class Ordered:
    """The tree over all slices: the same bits on any number of ranks.

    Each rank adds up its own pieces of the tree where its node's other ranks can read them; what
    joins them is left to the owner of each part of the vector.
    """

    def __init__(self, memory: SharedMemory, own: Ownership, dtype: Any) -> None:
        comm = memory.comm
        nodes = own.rank_pieces(comm.node)
        arrays = memory.arrays(ArraySpec(len(nodes), (own.size,), dtype))
        self.partial_sums = dict(zip(nodes, arrays, strict=True))
        self.tasks, count = tree.slice_tasks(*own.run(comm.rank), own.slices)
        self.vectors = [self.partial_sums[piece] for piece in own.pieces(comm.rank)]
        self.vectors += [np.zeros(own.size, dtype) for _ in range(count - len(self.vectors))]

    def join(self) -> None:
        """Nothing: the partial sums stand where they are read."""


class Mpi:
    """MPI's own Allreduce, for interconnects that add in hardware.

    Each rank adds up its run of slices as a tree of its own. The result depends on the number of
    ranks, and on how this MPI orders its additions.
    """

    def __init__(self, memory: SharedMemory, own: Ownership, dtype: Any) -> None:
        self._comm, self._here = memory.comm.mpi, memory.comm.status
        lo, hi = own.run(memory.comm.rank)
        tasks, count = tree.slice_tasks(0, hi - lo, hi - lo)
        self.tasks = [task._replace(slice=lo + task.slice) for task in tasks]
        self.vectors = [np.zeros(own.size, dtype) for _ in range(count)]
        self.partial_sums = {(0, own.slices): self.vectors[0]}

    def join(self) -> None:
        """The sum over all ranks, in every rank's own vector."""
        with self._here.waiting():
            self._comm.Allreduce(MPI.IN_PLACE, self.vectors[0])


REDUCTIONS: dict[str, type[Ordered] | type[Mpi]] = {"ordered": Ordered, "mpi": Mpi}
SAME_ON_ANY_RANKS = frozenset({"ordered"})
