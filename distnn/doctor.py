"""Why is it slow, why does it not start: ``[mpirun -n N] python -m distnn.doctor``.

Measures for a few seconds what training will meet: ranks, cores, products, links; then says what to
change.
"""

import dataclasses
import json
import os
import platform
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from distnn.command import on_first, run
from distnn.diagnostics.advice import Link, Rank, advice

if TYPE_CHECKING:
    from distnn.parallel.comm.communicator import Communicator

SIZE = 768  # of the square matrices of the product
PRODUCT_SECONDS = 0.4
SMALL, LARGE = 1, 1 << 22  # bytes of a message
ROUNDS = {SMALL: 200, LARGE: 4}
LINKS = 8  # nodes that are measured, of all


def doctor(comm: "Communicator", argv: Sequence[str]) -> None:
    """Measure on all ranks; rank 0 prints."""
    from distnn.diagnostics import links

    on_first(comm, _parse, argv)
    own = dataclasses.asdict(examine(comm))
    ranks = [
        Rank(**{**facts, "cores": tuple(facts["cores"])})
        for facts in map(json.loads, links.texts(comm, json.dumps(own)))
    ]
    inside = None
    first, end = next(((a, b) for a, b in comm.node_ranks if b - a > 1), (0, 0))
    if first != end:
        inside = link(comm, first, first + 1)
    leaders = [a for a, _ in comm.node_ranks]
    between = {node: link(comm, 0, leaders[node]) for node in _some(comm.nodes)}
    if comm.is_first:
        print("\n".join(report(links.mpi_library(), ranks, inside, between)))


def _parse(argv: Sequence[str]) -> None:
    from distnn.config.command_line import parse_doctor  # by rank 0 alone

    parse_doctor(argv)


def examine(comm: "Communicator") -> Rank:
    """This rank, while all others compute, too."""
    from distnn.parallel.comm.affinity import own_cores
    from distnn.parallel.comm.communicator import shared_memory_room
    from distnn.run.fingerprint import fingerprint

    facts = fingerprint()
    comm.mpi.Barrier()
    return Rank(
        host=socket.gethostname(),
        node=comm.node,
        cores=tuple(sorted(own_cores())),
        machine_cores=os.cpu_count() or 1,
        blas=f"{facts['blas']} {facts['blas_version']} {facts['blas_kernel']}",
        blas_threads=facts["blas_threads"] or 1,
        shared_memory=shared_memory_room(),
        product=product_speed(PRODUCT_SECONDS),
    )


def product_speed(seconds: float) -> float:
    """GFLOP/s of float32 matrix products on this rank, the best of those that fit in the time."""
    import numpy as np

    X = np.ones((SIZE, SIZE), np.float32)
    out = np.empty_like(X)
    best, end = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        np.matmul(X, X, out)
        best = min(best, time.perf_counter() - start)
    return float(2 * SIZE**3 / best / 1e9)


def link(comm: "Communicator", first: int, second: int) -> Link:
    """Between two ranks, by messages to and fro. Collective: all others wait."""
    from distnn.diagnostics import links

    times = {size: links.one_way(comm, first, second, size, ROUNDS[size]) for size in ROUNDS}
    return Link(latency=times[SMALL] * 1e6, bandwidth=LARGE / times[LARGE] / 1e6)


def report(
    library: str, ranks: Sequence[Rank], inside: Link | None, between: dict[int, Link]
) -> list[str]:
    """The lines to print."""
    nodes = sorted({rank.node for rank in ranks})
    lines = [
        f"{len(ranks)} ranks on {len(nodes)} nodes; Python {platform.python_version()}",
        f"MPI: {library}",
        f"BLAS: {', '.join(sorted({rank.blas for rank in ranks}))}; "
        f"threads per rank: {_span([rank.blas_threads for rank in ranks], str)}",
    ]
    for node in nodes:
        own = [(n, rank) for n, rank in enumerate(ranks) if rank.node == node]
        here = [rank for _, rank in own]
        allowed = _span([len(rank.cores) for rank in here], str)
        lines.append(
            f"node {node} ({here[0].host}): ranks {own[0][0]} to {own[-1][0]}, "
            f"{here[0].machine_cores} cores, each rank on {allowed}"
            f"; shared memory {here[0].shared_memory >> 20} MB"
            f"; product {_span([r.product for r in here], '{:.0f}'.format)} GFLOP/s per rank"
        )
    if inside is not None:
        lines.append(f"inside a node: {_told(inside)}")
    lines += [f"node 0 to node {node}: {_told(way)}" for node, way in between.items()]
    found = advice(ranks, inside, between)
    return [*lines, "", *(f"- {line}" for line in found or ["nothing to change was found"])]


def _told(way: Link) -> str:
    return f"{way.latency:.1f} microseconds, {way.bandwidth:.0f} MB/s"


def _span(values: Sequence[Any], told: Callable[[Any], str]) -> str:
    low, high = told(min(values)), told(max(values))
    return low if low == high else f"{low} to {high}"


def _some(nodes: int) -> list[int]:
    """Nodes other than the first, spread over all of them if they are many."""
    count = min(LINKS, nodes - 1)
    return [1 + k * (nodes - 1) // count for k in range(count)]


if __name__ == "__main__":
    run("doctor", doctor)
