"""What an update costs on cache lines that another rank has read: as it is, and claimed before.

    mpirun -n 2 python tests/benchmarks/lines.py

Prints microseconds of ``w -= g`` on vectors that stay in a core's cache: medians, and in brackets
those of the quickest and the slowest round.
"""

import sys
import time
from collections.abc import Callable

import numpy as np

from distnn.parallel.claims import Claims
from distnn.parallel.gates import Gates
from distnn.parallel.memory import SharedMemory
from distnn.parallel.team import Team

SIZES = (24_000, 102_000)
ROUNDS = 10  # cores may come closer to one another, or part, from second to second
TIMES = 50


def main() -> int:
    """Measure on the ranks of one node; rank 0 prints."""
    team = Team()
    if team.node_size < 2:
        print("start at least 2 ranks on one machine: mpirun -n 2 python ...", file=sys.stderr)
        return 2
    with np.errstate(all="ignore"):
        for size in SIZES:
            row = measure(team, size)
            if team.is_first:
                print(f"{size:,} weights: {'; '.join(row)}", flush=True)
    return 0


def measure(team: Team, size: int) -> list[str]:
    """Collective. The ways to update, each with its time."""
    memory = SharedMemory(team)
    gates, w = Gates(memory), memory.array((size,), np.float32)
    g, read = np.zeros(size, np.float32), np.empty(size, np.float32)
    claims = Claims([], w)

    def update() -> None:
        np.subtract(w, g, w)

    def claimed() -> None:
        claims.weights()
        np.subtract(w, g, w)

    ways: dict[str, tuple[bool, Callable[[], None]]] = {
        "read by nobody else": (False, update),
        "read by another rank": (True, update),
        "read and claimed": (True, claimed),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (shared, way) in ways.items():
            for _ in range(TIMES):
                gates.meet()
                if shared and not team.is_first:
                    np.add(w, g, read)
                gates.meet()
                if team.is_first:
                    start = time.perf_counter()
                    way()
                    seconds[name].append(time.perf_counter() - start)
    memory.close()
    return [f"{name} {told(values)}" for name, values in seconds.items()]


def told(seconds: list[float]) -> str:
    rounds = np.median(np.reshape(seconds or [0] * ROUNDS, (ROUNDS, -1)), axis=1) * 1e6
    return f"{np.median(rounds):.1f} ({rounds.min():.1f} to {rounds.max():.1f})"


if __name__ == "__main__":
    sys.exit(main())
