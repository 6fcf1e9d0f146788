"""The norm of a gradient whose parts are summed on several nodes: one small message each way."""

from collections.abc import Callable, Sequence

import numpy as np

from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.parallel.reduction.buckets import Bucket
from distnn.parallel.reduction.exchange import Layout
from distnn.parallel.reduction.transfer import KINDS, Roles

MakeRoles = Callable[[Bucket, int], Roles]
"""The roles of so many nodes for a bucket."""


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
        roles: MakeRoles,
    ) -> None:
        self._squares, self._sent = squares, False
        tag = KINDS * len(buckets)  # after those of the buckets
        granules = {
            node: np.concatenate([
                roles(bucket, comm.nodes).updates[node].granules(layout.ends)
                for bucket in buckets
            ])
            for node in range(comm.nodes)
        }  # fmt: skip
        self._own = granules[comm.node]

        def sends(source: int, target: int) -> bool:
            # nodes that update nothing need no norm, but for the first, which may be asked for it;
            # two nodes that both update all know it
            ours, theirs = granules[source], granules[target]
            needs = len(theirs) > 0 or target == 0
            return len(ours) > 0 and needs and not np.array_equal(ours, theirs)

        self._out = np.zeros(len(self._own))
        others = [node for node in range(comm.nodes) if node != comm.node]
        targets = [node for node in others if sends(comm.node, node)]
        sources = [node for node in others if sends(node, comm.node)]
        self._coming = [(granules[node], np.zeros(len(granules[node]))) for node in sources]
        leader = [ranks[0] for ranks in comm.node_ranks]
        self._sends = [comm.mpi.Send_init(self._out, leader[node], tag) for node in targets]
        self._receives = [
            comm.mpi.Recv_init(values, leader[node], tag)
            for node, (_, values) in zip(sources, self._coming, strict=True)
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
