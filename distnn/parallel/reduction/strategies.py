"""Which exchange serves which run."""

from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.shared_memory import ArraySpec, SharedMemory
from distnn.parallel.reduction.bucket_exchange import BucketExchange
from distnn.parallel.reduction.exchange import Exchange, Layout, shared_vectors
from distnn.parallel.reduction.node_exchange import AllreduceExchange, NodeExchange
from distnn.parallel.reduction.ownership import Ownership

SAME_ON_ANY_RANKS = frozenset({"ordered"})
"""Ways to reduce whose result depends on the slices alone."""


def make_exchange(
    memory: SharedMemory,
    layout: Layout,
    *,
    reduce: str,
    update: str,
    clip_norm: float | None,
) -> Exchange:
    """The exchange of a run. Collective.

    Args:
        reduce: "ordered" or "mpi".
        update: "rank0", "sharded" or "auto", see `exchange.chosen_update`.
        clip_norm: the largest norm a gradient may have; None for no limit.
    """
    if reduce == "mpi":
        return AllreduceExchange(memory, layout, update=update, clip_norm=clip_norm)
    if memory.comm.nodes > 1:
        return BucketExchange(memory, layout, update=update, clip_norm=clip_norm)
    return NodeExchange(memory, layout, update=update, clip_norm=clip_norm)


def shared_by_node(layout: Layout, comm: Communicator, reduce: str) -> list[ArraySpec]:
    """What a node shares for the exchange of a run, about."""
    own = Ownership(layout.slices, comm.node_ranks)
    states = len(layout.state) if comm.node == 0 or reduce == "mpi" else 0
    return list(shared_vectors(layout, own, comm.node, states).values())
