"""The vectors of a training, and the memory that they take on a node."""

import dataclasses
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from distnn.config.options import TrainConfig
from distnn.nn.layout import grid
from distnn.nn.network import Network
from distnn.nn.optimizers import Optimizer
from distnn.nn.optimizers.average import NAME as AVERAGE
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.shared_memory import ArraySpec, SharedMemory, needed_bytes
from distnn.parallel.reduction.exchange import Layout
from distnn.parallel.reduction.strategies import shared_by_node
from distnn.training.slices import chosen_slices

Array = NDArray[Any]

MARGIN = 1 << 20  # bytes of shared memory for what is small, and for whole pages


def layout_of(network: Network, optimizer: Optimizer, config: TrainConfig) -> Layout:
    """The vectors of a training."""
    grids = tuple(grid(shape, network.dtype.itemsize) for shape in network.shapes)
    state = (*optimizer.state, *([] if config.average is None else [AVERAGE]))
    scope, scratch = optimizer.scope, optimizer.scratch
    return Layout(grids, network.dtype, config.slices or 1, state, scope, scratch, config.wire)


def vector_bytes(
    network: Network, optimizer: Optimizer, comm: Communicator, config: TrainConfig
) -> int:
    """What a node shares for the vectors of a session, and a margin for what is small."""
    slices = chosen_slices(config.slices, config.batch_size, comm.size)
    config = dataclasses.replace(config, slices=slices)
    specs = shared_by_node(layout_of(network, optimizer, config), comm, config.reduce)
    if config.average is not None:
        specs.append(weights_spec(network))
    return needed_bytes(specs) + MARGIN


def weights_spec(network: Network) -> ArraySpec:
    """What `share_weights` takes of a node's memory."""
    return ArraySpec(1, (network.size,), network.dtype)


def share_weights(memory: SharedMemory, network: Network, write: Callable[[Array], None]) -> None:
    """Give a network on every rank the weights of rank 0, held once per node. Collective.

    Args:
        write: on rank 0, fills a vector (size,) with them.
    """
    vector = memory.array((network.size,), network.dtype)
    memory.comm.on_first(lambda: write(vector))
    memory.comm.broadcast_among_leaders(vector)
    network.bind(vector)
