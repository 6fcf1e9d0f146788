"""Step time of P ranks on N nodes: a short model, held against what can be measured here.

    python tests/benchmarks/scaling.py             # predicts from constants (--product: a rank's)
    python tests/benchmarks/scaling.py --check     # measures them and all layouts first (root)

The model, with n weights, B items, P ranks on N nodes, R = P / N ranks on each:

    compute  =  items(P) * flops per item / product speed * max(1, ranks per core)
    sum      =  4 n (R + 3) / R / memory bandwidth           each rank sums its part
    link     =  2 (N - 1) / N * 4 n / bandwidth + 2 latency  each way over every node's
    step     =  max(compute + sum, link)                     it travels beside the passes
"""

import argparse
import itertools
import json
import math
import statistics
import sys
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).resolve()
CASE, NUMBER = "784-512-512-10, 256", 1  # as hosts.py counts
NETWORKS = {
    CASE: ([784, 512, 512, 10], 256),
    "784-2048-2048-10, 8192": ([784, 2048, 2048, 10], 8192),
}
LAYOUTS = ([1], [2], [1, 1], [2, 2], [1, 1, 1], [1, 1, 1, 1])
CORES = 2


@dataclass(frozen=True)
class Constants:
    """Of one machine and its network: FLOP/s, seconds, bytes per second."""

    product: float = 50e9
    memory: float = 8e9
    latency: float = 50e-6
    bandwidth: float = 118e6
    cores: int = 0  # of all nodes together; 0: one per rank


def step_time(layers: list[int], batch: int, ranks: int, nodes: int, of: Constants) -> float:
    """Seconds per step, as in the text above."""
    sizes = [(1 + a) * b for a, b in itertools.pairwise(layers)]
    n = sum(sizes)
    items = math.ceil(batch / ranks)
    flops = 6 * n - 2 * sizes[0]  # the first layer needs no sensitivity below it
    crowd = max(1.0, ranks / of.cores) if of.cores else 1.0
    own = ranks / nodes
    busy = (items * flops / of.product + 4 * n * (own + 3) / own / of.memory) * crowd
    if nodes == 1:
        return busy
    gradients = 2 * (nodes - 1) / nodes
    return max(busy, gradients * 4 * n / of.bandwidth + 2 * of.latency)


def predict(of: Constants, ranks_per_node: int) -> None:
    """Print step times for 8 to 1,024 ranks, at two link speeds."""
    for name, (layers, batch) in NETWORKS.items():
        one = step_time(layers, batch, 1, 1, of)
        print(
            f"\n{name}, {ranks_per_node} ranks per node: ms per step (times faster than one rank)"
        )
        print(f"  {'ranks':>6} {'nodes':>6} {'1 Gbit/s':>20} {'100 Gbit/s':>20}")
        for ranks in (8, 16, 32, 64, 128, 256, 512, 1024):
            nodes = max(1, ranks // ranks_per_node)
            cells = []
            for speed, latency in ((118e6, 50e-6), (11.8e9, 3e-6)):
                link = replace(of, bandwidth=speed, latency=latency)
                t = step_time(layers, batch, ranks, nodes, link)
                cells.append(f"{t * 1e3:9.2f} ({one / t:6.1f}x)")
            print(f"  {ranks:6d} {nodes:6d} {cells[0]:>20} {cells[1]:>20}")


def check(rounds: int) -> Constants:
    """Measure the constants and all layouts on the test cluster; print both beside the model."""
    sys.path[:0] = [str(HERE.parents[1] / "system"), str(HERE.parent)]
    from cluster import Cluster

    layers, batch = NETWORKS[CASE]
    worker = HERE.with_name("hosts.py")
    times: dict[str, list[float]] = {}
    with Cluster(4) as cluster:
        for _ in range(rounds):
            for ranks in LAYOUTS:
                env = {"HOSTS": str(len(ranks)), "OPENBLAS_NUM_THREADS": "1"}
                out = cluster.mpirun(ranks, worker, "default", NUMBER, env=env, timeout=120).stdout
                told = json.loads(out[out.index("RESULT") + 6 :].splitlines()[0])
                times.setdefault(str(ranks), []).append(told["step"])
            env = {"HOSTS": "2", "OPENBLAS_NUM_THREADS": "1"}
            out = cluster.mpirun([1, 1], worker, "alone", NUMBER, env=env, timeout=120).stdout
            told = json.loads(out[out.index("RESULT") + 6 :].splitlines()[0])
            times.setdefault("alone", []).append(told["step"])
            times.setdefault("link", []).append(told["link"])
    median = {name: statistics.median(values) / 1e3 for name, values in times.items()}
    sizes = [(1 + a) * b for a, b in itertools.pairwise(layers)]
    n = sum(sizes)
    memory = Constants().memory
    busy = median["alone"] - 4 * n * 4 / memory
    constants = Constants(
        product=batch / 2 * (6 * n - 2 * sizes[0]) / busy,
        bandwidth=4 * n / median["link"],
        cores=CORES,
    )
    print(
        f"product {constants.product / 1e9:.0f} GFLOP/s, link {constants.bandwidth / 1e6:.0f} MB/s"
    )
    print(f"{CASE}: ms per step\n  {'ranks on each host':20} {'measured':>9} {'model':>9}")
    for ranks in LAYOUTS:
        model = step_time(layers, batch, sum(ranks), len(ranks), constants)
        print(f"  {ranks!s:20} {median[str(ranks)] * 1e3:9.1f} {model * 1e3:9.1f}")
    return replace(constants, cores=0)


def main() -> None:
    """See the top."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ranks-per-node", type=int, default=8)
    parser.add_argument("--product", type=float, help="GFLOP/s of a rank, as the doctor prints")
    flags = parser.parse_args()
    of = check(flags.rounds) if flags.check else Constants()
    if flags.product:
        of = replace(of, product=flags.product * 1e9)
    predict(of, flags.ranks_per_node)


if __name__ == "__main__":
    main()
