"""Step times over several hosts, beside PyTorch's DistributedDataParallel (gloo), in one run.

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python tests/benchmarks/hosts.py --hosts 4
        [--ranks 1] [--rate 1gbit] [--torch PYTHON] [--rounds 3] [--case K ...] [--kinds KIND ...]

Run as root, with MPICH: the hosts are those of tests/system/cluster.py, network namespaces on one
machine whose cores they share, each with its own link. PYTHON is an interpreter that can import
torch. All variants take turns, and medians are printed, in milliseconds per step. "alone" is a
host's share of the batch with no exchange; "bound" is 2 (N-1)/N gradients over the link at the
speed that was measured for it; "sent" are the bytes per step on the first host's link, in
gradients. "memory" is by how much the memory of a host that holds most grew by the training, in
vectors of as many numbers as there are weights (case 3 has passes of next to nothing).
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
CASES: list[tuple[list[int], int, int, str]] = [
    ([784, 30, 10], 16, 300, "sigmoid"),
    ([784, 512, 512, 10], 256, 40, "relu"),
    ([784, 2048, 2048, 10], 1024, 8, "relu"),
    ([784, 4096, 4096, 10], 16, 3, "relu"),
]
KINDS: dict[str, dict[str, Any]] = {
    "alone": {},
    "default": {},
    "rank0": {"update": "rank0"},
    "sharded": {"update": "sharded"},
    "clipped": {"clip_norm": 1e-3},
    "adam": {"adam": True},
    "whole": {"whole": True},  # a slice for each rank
    "whole-adam": {"whole": True, "adam": True},
    "wire": {"wire": "bfloat16"},
}
WARM = 3


def timed(step: Callable[[], Any], steps: int) -> float:
    """Milliseconds per step."""
    for _ in range(WARM):
        step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - start) / steps * 1e3


def sent() -> int:
    """Bytes that this host has sent over its link so far, headers included."""
    return int(Path("/sys/class/net/net0/statistics/tx_bytes").read_text())


def proportional_bytes() -> int:
    """Memory of this process; a page that k processes share counts 1/k in each."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def measure_distnn(kind: str, case: int) -> dict[str, float]:
    """Ours; "alone": each rank its own share of the batch, nothing exchanged."""
    layers, batch, steps, activation = CASES[case]
    import numpy as np

    from distnn import SGD, Adam, Network, Trainer
    from distnn.parallel.comm.mpi import MPI
    from distnn.parallel.comm.shared_memory import SharedMemory
    from distnn.training.arrays import from_arrays

    world, options = MPI.COMM_WORLD, dict(KINDS[kind])
    alone = kind == "alone"
    comm = MPI.COMM_SELF if alone else world
    if alone:
        batch = max(1, batch // world.size)
    rows = batch * (steps + WARM + 1)
    draw = np.random.default_rng(0)
    X = draw.standard_normal((rows, layers[0]), np.float32)
    T = draw.integers(0, layers[-1], rows)
    optimizer = Adam(1e-4) if options.pop("adam", False) else SGD(0.01)
    options |= {"slices": world.size} if options.pop("whole", False) else {}
    network = Network(layers, activation=activation)
    trainer = Trainer(network, optimizer, batch_size=batch, comm=comm, **options)
    dataset = from_arrays(trainer.comm, SharedMemory(trainer.comm), network, X, T, False)
    memory = proportional_bytes()
    session = trainer.open_session(trainer.comm, dataset)
    session.begin_epoch(epochs=1)
    with np.errstate(all="ignore"):
        world.Barrier()
        before = sent()
        result = {"step": timed(session.step, steps)}
        session.exchange.flush()
        world.Barrier()
    memory = proportional_bytes() - memory
    grown = trainer.comm.node_comm.allreduce(memory) / (4 * network.size)
    result["memory"] = world.allreduce(grown, MPI.MAX)
    world.Barrier()
    gradients = (sent() - before) / (steps + WARM) / (4 * network.size)
    result |= {"sent": gradients} if not alone else link(world, network.size)
    return result if world.rank == 0 else {}


def link(world: Any, size: int) -> dict[str, float]:
    """The speed of a link that both directions use at once, and what the step's bytes take."""
    import numpy as np

    gradient, other = np.ones(size, np.float32), np.empty(size, np.float32)
    hosts = int(os.environ["HOSTS"])
    ranks = world.size // hosts
    partner = (world.rank + ranks) % world.size, (world.rank - ranks) % world.size
    world.Barrier()
    exchange = lambda: world.Sendrecv(gradient, partner[0], 0, other, partner[1], 0)  # noqa: E731
    whole = timed(exchange, 5) / ranks
    return {"link": whole, "bound": whole * 2 * (hosts - 1) / hosts}


def measure_torch(case: int) -> dict[str, float]:
    """PyTorch: contiguous rows, so that it need not gather."""
    import torch
    from torch import distributed, nn
    from torch.nn.parallel import DistributedDataParallel

    layers, batch, steps, activation = CASES[case]
    rank, size = int(os.environ["PMI_RANK"]), int(os.environ["PMI_SIZE"])
    os.environ.update(GLOO_SOCKET_IFNAME="net0", MASTER_ADDR="10.77.0.1", MASTER_PORT="29511")
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=size)
    hidden = nn.Sigmoid if activation == "sigmoid" else nn.ReLU
    pairs = list(itertools.pairwise(layers))
    parts: list[Any] = [part for n, m in pairs for part in (nn.Linear(n, m), hidden())]
    model = DistributedDataParallel(nn.Sequential(*parts[:-1]), gradient_as_bucket_view=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    own = max(1, batch // size)
    X = torch.randn(4096, layers[0])
    T = torch.randint(0, layers[-1], (4096,))
    at = 0

    def step() -> None:
        nonlocal at
        optimizer.zero_grad(set_to_none=False)
        nn.functional.cross_entropy(model(X[at : at + own]), T[at : at + own]).backward()
        optimizer.step()
        at = (at + own) % (4096 - own)

    distributed.barrier()
    before = sent()
    result = {"step": timed(step, steps)}
    distributed.barrier()
    size = sum(p.numel() for p in model.parameters())
    result["sent"] = (sent() - before) / (steps + WARM) / (4 * size)
    return result if rank == 0 else {}


def worker(kind: str, case: int) -> None:
    """One run of one variant, on all ranks; rank 0 prints."""
    result = measure_torch(case) if kind == "torch" else measure_distnn(kind, case)
    if result:
        print("RESULT", json.dumps(result), flush=True)


def main() -> None:
    """Start all variants by turns and print the medians."""
    sys.path.insert(0, str(HERE.parents[1] / "system"))
    from cluster import Cluster
    from machine import machine

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--ranks", type=int, default=1, help="on each host")
    parser.add_argument("--rate", default="1gbit")
    parser.add_argument("--torch", help="a Python with torch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", type=int, nargs="+", default=[1, 2], choices=range(len(CASES)))
    parser.add_argument("--kinds", nargs="+", default=["alone", "default"], choices=KINDS)
    flags = parser.parse_args()
    kinds = [*flags.kinds, *(["torch"] if flags.torch else [])]
    env = {"HOSTS": str(flags.hosts), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    print(f"{flags.hosts} hosts, {flags.ranks} ranks on each, {flags.rate}; {machine()}")
    with Cluster(flags.hosts, flags.rate) as cluster:
        for case in flags.case:
            figures: dict[str, list[float]] = {}
            for _, kind in itertools.product(range(flags.rounds), kinds):
                python = flags.torch if kind == "torch" else sys.executable
                ranks = [flags.ranks] * flags.hosts
                out = cluster.mpirun(ranks, HERE, kind, case, python=python, env=env, timeout=180)
                lines = [line for line in out.stdout.splitlines() if line[:6] == "RESULT"]
                if not lines:
                    sys.exit(f"{kind}: {out}")
                for name, value in json.loads(lines[0][6:]).items():
                    label = {"step": kind, "link": name, "bound": name}.get(name, f"{kind}, {name}")
                    figures.setdefault(label, []).append(value)
            print(f"{'-'.join(map(str, CASES[case][0]))}, {CASES[case][1]}", flush=True)
            for label, values in figures.items():
                spread = f"{min(values):.2f} to {max(values):.2f}"
                print(f"  {label:16} {statistics.median(values):9.2f}   ({spread})", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] in (*KINDS, "torch"):
        worker(sys.argv[1], int(sys.argv[2]))
    else:
        main()
