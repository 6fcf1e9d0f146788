"""The norm of a gradient whose parts are summed on several nodes: one small message each way."""

from collections.abc import Callable, Sequence

import numpy as np

from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.parallel.reduction.buckets import Bucket, Region
from distnn.parallel.reduction.exchange import Layout
from distnn.parallel.reduction.transfer import KINDS, Roles


class NormExchange:
    """The leader's share: the node's squares go to all leaders, theirs come.

    Args:
        roles: of the nodes, of a bucket.
        squares: (granules,) of the whole vector, in the node's shared memory.
    """

    def __init__(
        self,
        comm: Communicator,
        layout: Layout,
        buckets: Sequence[Bucket],
        squares: np.ndarray,
        roles: Callable[[Region, int], Roles],
    ) -> None:
        self._squares, self._sent = squares, False
        tag = KINDS * len(buckets)  # after those of the buckets
        granules = {
            node: np.concatenate([
                roles(bucket.region, comm.nodes).updates[node].granules(layout.ends)
                for bucket in buckets
            ])
            for node in range(comm.nodes)
        }  # fmt: skip
        self._own = granules[comm.node]
        # nodes that update nothing need no norm, and two nodes that both update all know it
        others = [
            node
            for node, theirs in granules.items()
            if len(theirs) and len(self._own) and not np.array_equal(theirs, self._own)
        ]
        self._out = np.zeros(len(self._own))
        self._coming = [(granules[node], np.zeros(len(granules[node]))) for node in others]
        leaders = [comm.node_ranks[node][0] for node in others]
        self._sends = [comm.mpi.Send_init(self._out, leader, tag) for leader in leaders]
        self._receives = [
            comm.mpi.Recv_init(values, leader, tag)
            for leader, (_, values) in zip(leaders, self._coming, strict=True)
        ]

    def move(self) -> bool:
        """Once the node's squares are complete: whether all nodes' are, in `squares`."""
        if not self._sent:
            np.take(self._squares, self._own, out=self._out)
            MPI.Prequest.Startall([*self._receives, *self._sends])
            self._sent = True
        if not MPI.Request.Testall([*self._receives, *self._sends]):
            return False
        for where, values in self._coming:
            self._squares[where] = values
        self._sent = False
        return True

    def close(self) -> None:
        """Give the requests back."""
        for request in (*self._sends, *self._receives):
            request.Free()
