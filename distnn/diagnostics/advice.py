"""What `distnn.doctor` measures of ranks and nodes, and what it recommends to change."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SLOW = 0.75  # of the median: a rank that computes slower than that is named
BIG_LATENCY = 100.0  # microseconds between ranks of one node: more than a wait for a core
LINK_LATENCY = 500.0  # microseconds between nodes
SMALL_SHARED = 1 << 28  # bytes; containers often have 64 MB


@dataclass(frozen=True)
class Rank:
    """What was measured of one rank.

    Attributes:
        cores: core numbers it may run on.
        machine_cores: of the whole machine.
        blas_threads: that a product of this rank uses.
        shared_memory: free bytes of shared memory on its machine.
        product: GFLOP/s of a float32 matrix product while all ranks compute.
    """

    host: str
    node: int
    cores: Sequence[int]
    machine_cores: int
    blas: str
    blas_threads: int
    shared_memory: int
    product: float


@dataclass(frozen=True)
class Link:
    """Between two ranks: microseconds of a small message, one way; MB/s of a large one."""

    latency: float
    bandwidth: float


def advice(ranks: Sequence[Rank], inside: Link | None, between: Mapping[int, Link]) -> list[str]:
    """What to change, most important first; empty if nothing is found.

    Args:
        inside: between two ranks of the first node; None if no node has two.
        between: from node 0 to the leader of each other node.
    """
    nodes = sorted({rank.node for rank in ranks})
    by_node = {node: [rank for rank in ranks if rank.node == node] for node in nodes}
    found = [line for node in nodes for line in _oversubscribed(by_node[node])]
    found += _separated(by_node)
    found += _threads(ranks)
    found += _slow(ranks)
    found += _uneven(by_node)
    found += _shared(by_node)
    found += _links(by_node, inside, between)
    return found


def _oversubscribed(ranks: Sequence[Rank]) -> list[str]:
    host, cores = ranks[0].host, set().union(*(rank.cores for rank in ranks))
    if len(ranks) > len(cores):
        limit = "" if len(cores) == ranks[0].machine_cores else (
            f" of the machine's {ranks[0].machine_cores} (the launcher's binding: mpirun -bind-to "
            "none, srun --cpus-per-task, or the container's limit)"
        )  # fmt: skip
        return [
            f"{host}: {len(ranks)} ranks share {len(cores)} cores{limit}: start at most one rank "
            "per physical core; with --slices kept, the result has the same bits"
        ]
    return []


def _separated(by_node: Mapping[int, Sequence[Rank]]) -> list[str]:
    nodes_of: dict[str, int] = {}
    for ranks in by_node.values():
        nodes_of[ranks[0].host] = nodes_of.get(ranks[0].host, 0) + 1
    return [
        f"{host}: its ranks do not share memory and count as {count} nodes: is every rank in a "
        "container of its own? Put the ranks of a machine into one"
        for host, count in nodes_of.items()
        if count > 1
    ]


def _threads(ranks: Sequence[Rank]) -> list[str]:
    worst = max(rank.blas_threads for rank in ranks)
    if worst > 1:
        return [
            f"{worst} BLAS threads per rank: ranks are the parallelism; unset OMP_NUM_THREADS and "
            "its like, or set it to 1, unless each rank has that many cores of its own"
        ]
    if len({rank.blas for rank in ranks}) > 1:
        kinds = ", ".join(sorted({f"{rank.blas} on {rank.host}" for rank in ranks}))
        return [f"different BLAS builds or kernels ({kinds}): bits depend on who has which slice"]
    return []


def _slow(ranks: Sequence[Rank]) -> list[str]:
    median = statistics.median(rank.product for rank in ranks)
    slow = [(n, rank) for n, rank in enumerate(ranks) if rank.product < SLOW * median]
    return [
        f"rank {n} on {rank.host} computes at {rank.product:.0f} GFLOP/s, the median is "
        f"{median:.0f}: every step waits for it; is the core shared, hot or of another kind?"
        for n, rank in slow
    ]


def _uneven(by_node: Mapping[int, Sequence[Rank]]) -> list[str]:
    sizes = {node: len(ranks) for node, ranks in by_node.items()}
    if max(sizes.values()) <= min(sizes.values()) + 1:
        return []
    few, many = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
    return [
        f"uneven nodes: {sizes[many]} ranks on {by_node[many][0].host}, {sizes[few]} on "
        f"{by_node[few][0].host}: nothing is wrong, but the same number on each serves a link best"
    ]


def _shared(by_node: Mapping[int, Sequence[Rank]]) -> list[str]:
    return [
        f"{ranks[0].host}: {ranks[0].shared_memory >> 20} MB of shared memory: a larger network or "
        "data set is then copied for every rank; give the container more (docker --shm-size)"
        for ranks in by_node.values()
        if len(ranks) > 1 and ranks[0].shared_memory < SMALL_SHARED
    ]


def _links(
    by_node: Mapping[int, Sequence[Rank]], inside: Link | None, between: Mapping[int, Link]
) -> list[str]:
    found = []
    if inside is not None and inside.latency > BIG_LATENCY:
        found.append(
            f"{inside.latency:.0f} microseconds between ranks of one node: they wait for cores, or "
            "MPI does not use shared memory (UCX_TLS, OMPI_MCA_btl)"
        )
    usual = statistics.median(link.bandwidth for link in between.values()) if between else 0.0
    for node, link in between.items():
        host = by_node[node][0].host
        if link.bandwidth < SLOW * usual:
            found.append(
                f"the way to {host} has {link.bandwidth:.0f} MB/s, the others {usual:.0f}: "
                "look at its cable, port and network interface"
            )
        if link.latency > LINK_LATENCY:
            found.append(
                f"{link.latency:.0f} microseconds to {host}: is MPI on the right network? "
                "(mpirun -iface, UCX_NET_DEVICES, OMPI_MCA_btl_tcp_if_include)"
            )
    return found
