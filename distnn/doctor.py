"""Why is it slow, why does it not start: ``[mpirun -n N] python -m distnn.doctor``.

Measures ranks, cores, matrix products and links between ranks for a few seconds; then says what to
change.
"""

import dataclasses
import json
import os
import platform
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from distnn.command import on_first, run
from distnn.diagnostics.advice import Link, Rank, advice

if TYPE_CHECKING:
    from distnn.parallel.comm.communicator import Communicator

SMALL, LARGE = 1, 1 << 22  # bytes of a message
ROUNDS = {SMALL: 200, LARGE: 4}
LINKS = 8  # nodes that are measured, of all


def doctor(comm: "Communicator", argv: Sequence[str]) -> None:
    """Measure on all ranks; rank 0 prints."""
    from distnn.parallel.comm.communicator import mpi_library

    on_first(comm, _parse, argv)
    texts = comm.gather_texts(json.dumps(dataclasses.asdict(examine(comm))))
    first = next((first for first, end in comm.node_ranks if end - first > 1), None)
    inside = None if first is None else measure_link(comm, first, first + 1)
    leaders = [first for first, _ in comm.node_ranks]
    between = {node: measure_link(comm, 0, leaders[node]) for node in _sample(comm.nodes)}
    if texts is not None:  # rank 0
        ranks = [Rank(**json.loads(text)) for text in texts]
        found = [*kernels(), *advice(ranks, inside, between)]
        print("\n".join(report(mpi_library(), ranks, inside, between, found)))


def _parse(argv: Sequence[str]) -> None:
    from distnn.config.command_line import parse_doctor  # by rank 0 alone

    parse_doctor(argv)


def examine(comm: "Communicator") -> Rank:
    """Facts about this rank, and its speed while all others compute, too. Collective."""
    from distnn.diagnostics.product_speed import product_speed
    from distnn.parallel.comm.affinity import own_cores
    from distnn.parallel.comm.communicator import shared_memory_room
    from distnn.run.fingerprint import fingerprint

    facts = fingerprint()
    comm.mpi.Barrier()
    return Rank(
        host=socket.gethostname(),
        node=comm.node,
        cores=sorted(own_cores()),
        machine_cores=os.cpu_count() or 1,
        blas=f"{facts['blas']} {facts['blas_version']} {facts['blas_kernel']}",
        blas_threads=facts["blas_threads"] or 1,
        shared_memory=shared_memory_room(),
        product=product_speed(),
    )


def kernels() -> list[str]:
    """What the environment does to OpenBLAS, and what it costs: measured in two processes."""
    from distnn.diagnostics.product_speed import speed_in, without
    from distnn.run.fingerprint import fingerprint
    from distnn.run.kernels import VARIABLES, kernels_message

    found = kernels_message(fingerprint())
    if not found:
        return []
    speeds = speed_in(os.environ), speed_in(without(*VARIABLES))
    if None in speeds:
        return [found]
    return ["{}; measured: {:.0f} GFLOP/s as it is, {:.0f} then".format(found, *speeds)]


def measure_link(comm: "Communicator", first: int, second: int) -> Link:
    """Between two ranks, by messages to and fro. Collective: all others wait."""
    from distnn.diagnostics.links import one_way

    times = {size: one_way(comm, first, second, size, ROUNDS[size]) for size in ROUNDS}
    return Link(latency=times[SMALL] * 1e6, bandwidth=LARGE / times[LARGE] / 1e6)


def report(
    library: str,
    ranks: Sequence[Rank],
    inside: Link | None,
    between: dict[int, Link],
    found: Sequence[str],
) -> list[str]:
    """The lines to print; last what was found that can be changed."""
    nodes = sorted({rank.node for rank in ranks})
    lines = [
        f"{len(ranks)} ranks on {len(nodes)} nodes; Python {platform.python_version()}",
        f"MPI: {library}",
        f"BLAS: {', '.join(sorted({rank.blas for rank in ranks}))}; "
        f"threads per rank: {_range([rank.blas_threads for rank in ranks])}",
    ]
    for node in nodes:
        numbers = [n for n, rank in enumerate(ranks) if rank.node == node]
        of_node = [ranks[n] for n in numbers]
        leader = of_node[0]
        lines.append(
            f"node {node} ({leader.host}): ranks {numbers[0]} to {numbers[-1]}, "
            f"{leader.machine_cores} cores, "
            f"each rank on {_range([len(rank.cores) for rank in of_node])}"
            f"; shared memory {leader.shared_memory >> 20} MB"
            f"; product {_range([rank.product for rank in of_node])} GFLOP/s per rank"
        )
    if inside is not None:
        lines.append(f"inside a node: {_link_line(inside)}")
    lines += [f"node 0 to node {node}: {_link_line(link)}" for node, link in between.items()]
    return [*lines, "", *(f"- {line}" for line in found or ["nothing to change was found"])]


def _link_line(link: Link) -> str:
    return f"{link.latency:.1f} microseconds, {link.bandwidth:.0f} MB/s"


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"


def _sample(nodes: int) -> list[int]:
    """Nodes other than the first, spread over all of them if they are many."""
    count = min(LINKS, nodes - 1)
    return [1 + k * (nodes - 1) // count for k in range(count)]


if __name__ == "__main__":
    run("doctor", doctor)
