"""Teams of every shape, on one machine: what is made of them must not depend on their shape."""

from collections.abc import Iterator

import pytest

from distnn.parallel import team as team_module
from distnn.parallel.memory import SharedMemory
from distnn.parallel.mpi import MPI
from distnn.parallel.team import Team

# Which node each rank stands on. Ranks that are put on different nodes do not share memory, so
# that everything between nodes is tested without a cluster.
NODES = {
    "one node": lambda rank: 0,
    "nodes of two": lambda rank: rank // 2,  # 3 ranks: the last node has one
    "nodes dealt out": lambda rank: rank % 2,  # the launcher went round
    "last alone": lambda rank: int(rank == MPI.COMM_WORLD.size - 1),
}


@pytest.fixture(scope="module", params=[*NODES, "a node per rank", "one rank"])
def team(request: pytest.FixtureRequest) -> Team:
    if request.param == "one rank":
        return Team(MPI.COMM_SELF)
    if request.param == "a node per rank":
        return Team(shared=False)
    node = NODES[request.param]

    def split(base: MPI.Comm, shared: bool) -> MPI.Comm:
        return base.Split(node(base.rank) if shared else base.rank, base.rank)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(team_module, "_node_communicator", split)
        return Team()


@pytest.fixture
def memory(team: Team) -> Iterator[SharedMemory]:
    memory = SharedMemory(team)
    yield memory
    memory.close()
