"""Communicators of every shape on one machine: no result may depend on their shape."""

from collections.abc import Iterator

import pytest

from distnn.parallel.comm import communicator as communicator_module
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.parallel.comm.shared_memory import SharedMemory

# Which node each rank is on. Ranks that are put on different nodes do not share memory, so that
# everything between nodes is tested without a cluster.
NODES = {
    "one node": lambda rank: 0,
    "nodes of two": lambda rank: rank // 2,  # 3 ranks: the last node has one
    "round robin": lambda rank: rank % 2,  # as some launchers place ranks
    "last alone": lambda rank: int(rank == MPI.COMM_WORLD.size - 1),
}


@pytest.fixture(scope="module", params=[*NODES, "a node per rank", "one rank"])
def comm(request: pytest.FixtureRequest) -> Communicator:
    if request.param == "one rank":
        return Communicator(MPI.COMM_SELF)
    if request.param == "a node per rank":
        return Communicator(shared=False)
    node = NODES[request.param]

    def split(base: MPI.Comm, shared: bool) -> MPI.Comm:
        return base.Split(node(base.rank) if shared else base.rank, base.rank)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(communicator_module, "_node_communicator", split)
        return Communicator()


@pytest.fixture
def memory(comm: Communicator) -> Iterator[SharedMemory]:
    memory = SharedMemory(comm)
    yield memory
    memory.close()
