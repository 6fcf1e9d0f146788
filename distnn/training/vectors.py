"""The vectors of a training, and the memory that they take on a node."""

import dataclasses

from distnn.config.options import TrainConfig
from distnn.nn.layout import grid
from distnn.nn.network import Network
from distnn.nn.optimizers import Optimizer
from distnn.nn.optimizers.average import NAME as AVERAGE
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.shared_memory import ArraySpec, needed_bytes
from distnn.parallel.reduction.exchange import Layout
from distnn.parallel.reduction.strategies import shared_by_node
from distnn.training.slices import chosen_slices

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
        specs.append(ArraySpec(1, (network.size,), network.dtype))
    return needed_bytes(specs) + MARGIN
