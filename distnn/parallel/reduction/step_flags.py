"""What the ranks of a node announce to one another in a step, without a message."""

import numpy as np

from distnn.parallel.comm.shared_memory import SharedMemory

LINE = 8  # int64 numbers in a cache line
COMPLETE, SUMMED, STOP = range(3)  # of a rank's line
NORM, NODES_STOP = range(2)  # of the line that the leader writes


class StepFlags:
    """Lines of numbers in shared memory, each written by one rank and read by all of the node.

    Args:
        buckets: how many there are.

    Attributes:
        sync: a memory fence, between seeing a number and reading what it announces.
    """

    def __init__(self, memory: SharedMemory, buckets: int) -> None:
        comm = memory.comm
        lines = memory.array(((comm.node_size + 1) * LINE,), np.int64)
        self._lines = lines.data.cast("B").cast("q")
        self._done = memory.array((buckets,), np.int64).data.cast("B").cast("q")
        self.sync = memory.sync
        self._mine, self._leader = comm.node_rank * LINE, comm.node_size * LINE
        self._ranks = [rank * LINE for rank in range(comm.node_size)]

    def gradients_complete(self, count: int) -> None:
        """This rank has completed so many blocks of gradients in all."""
        self._announce(COMPLETE, count)

    def slowest(self) -> int:
        """How many blocks of gradients every rank of the node has completed."""
        return min([self._lines[line + COMPLETE] for line in self._ranks])

    def request_stop(self, stop: int) -> None:
        """This rank's stop request of the step that begins."""
        self._lines[self._mine + STOP] = stop

    def stop_of_node(self) -> int:
        """The largest stop request of the node's ranks."""
        return max([self._lines[line + STOP] for line in self._ranks])

    def buckets_summed(self, step: int) -> None:
        """This rank has added up all its buckets of a step, and written their squares."""
        self._announce(SUMMED, step)

    def all_summed(self, step: int) -> bool:
        """Whether all ranks of the node have."""
        return min([self._lines[line + SUMMED] for line in self._ranks]) >= step

    def norm_known(self, step: int) -> None:
        """The squares of all nodes are there; by the leader."""
        self.sync()
        self._lines[self._leader + NORM] = step

    def is_norm_known(self, step: int) -> bool:
        """Whether they are."""
        return self._lines[self._leader + NORM] >= step

    def set_stop_of_nodes(self, stop: int) -> None:
        """The largest stop request of all nodes; by the leader."""
        self._lines[self._leader + NODES_STOP] = stop

    def stop_of_nodes(self) -> int:
        """The largest stop request of all nodes in the last step."""
        return self._lines[self._leader + NODES_STOP]

    def bucket_done(self, number: int, step: int) -> None:
        """A bucket's weights are those of a step; by the rank that handles it."""
        self.sync()
        self._done[number] = step

    def are_done(self, numbers: list[int], step: int) -> bool:
        """Whether some buckets' weights are those of a step."""
        done = self._done
        return min([done[number] for number in numbers]) >= step

    def _announce(self, what: int, value: int) -> None:
        self.sync()
        self._lines[self._mine + what] = value
