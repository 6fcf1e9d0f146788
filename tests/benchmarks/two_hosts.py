"""Step times over a link between two hosts, beside PyTorch's DistributedDataParallel (gloo).

    python tests/benchmarks/two_hosts.py [--ranks 1] [--rate 1gbit] [--torch PYTHON] [--rounds 3]

Run as root, with MPICH: the hosts are those of tests/system/cluster.py. PYTHON is an interpreter
that can import torch; without it there is nothing to compare with. All rounds of all variants take
turns, and medians are told. "compute alone" is half a batch on each host, with no exchange; "link"
is one gradient sent both ways at once.
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
CASES = {
    "784-512-512-10, 256": ([784, 512, 512, 10], 256, 40),
    "784-2048-2048-10, 1024": ([784, 2048, 2048, 10], 1024, 8),
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


def measure_distnn(
    layers: list[int], batch: int, steps: int, alone: bool, blocking: bool
) -> dict[str, float]:
    """Ours; `alone`: each rank its own share of the batch, nothing exchanged."""
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    import numpy as np

    from distnn import SGD, Network, Trainer
    from distnn.parallel.comm.mpi import MPI
    from distnn.parallel.comm.shared_memory import SharedMemory
    from distnn.training.dataset import from_arrays

    world = MPI.COMM_WORLD
    comm = MPI.COMM_SELF if alone else world
    if alone:
        batch //= world.size
    rows = batch * (steps + WARM + 1)
    draw = np.random.default_rng(0)
    X = draw.standard_normal((rows, layers[0]), np.float32)
    T = draw.integers(0, layers[-1], rows)
    clip = 1e9 if blocking else None  # a limit that is never reached, but has to be looked at
    trainer = Trainer(
        Network(layers), SGD(0.01), batch_size=batch, comm=comm, clip_norm=clip, update="sharded"
    )
    samples = from_arrays(trainer.comm, SharedMemory(trainer.comm), trainer.network, X, T, False)
    session = trainer.open_session(trainer.comm)
    session.begin_epoch(samples)
    with np.errstate(all="ignore"):
        world.Barrier()
        result = {"step": timed(lambda: session.step(samples, steps), steps)}
    session.exchange.flush()
    gradient = np.ones(trainer.network.size, np.float32)
    other = np.empty_like(gradient)
    partner = (world.rank + world.size // 2) % world.size
    if alone and world.size > 1:
        world.Barrier()
        exchange = lambda: world.Sendrecv(gradient, partner, 0, other, partner, 0)  # noqa: E731
        result["link"] = timed(exchange, 5) / (world.size // 2)
    world.Barrier()
    return result if world.rank == 0 else {}


def measure_torch(layers: list[int], batch: int, steps: int) -> dict[str, float]:
    """PyTorch: contiguous rows, so that it need not gather."""
    import torch
    from torch import distributed, nn
    from torch.nn.parallel import DistributedDataParallel

    rank, size = int(os.environ["PMI_RANK"]), int(os.environ["PMI_SIZE"])
    os.environ.update(GLOO_SOCKET_IFNAME="net0", MASTER_ADDR="10.77.0.1", MASTER_PORT="29511")
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=size)
    pairs = list(itertools.pairwise(layers))
    parts: list[Any] = [part for n, m in pairs for part in (nn.Linear(n, m), nn.ReLU())]
    model = DistributedDataParallel(nn.Sequential(*parts[:-1]))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    own = batch // size
    X = torch.randn(4096, layers[0])
    T = torch.randint(0, layers[-1], (4096,))
    at = 0

    def step() -> None:
        nonlocal at
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(X[at : at + own]), T[at : at + own])
        loss.backward()
        optimizer.step()
        loss.item()
        at = (at + own) % (4096 - own)

    distributed.barrier()
    result = {"step": timed(step, steps)}
    distributed.barrier()
    return result if rank == 0 else {}


def worker(kind: str, case: str) -> None:
    """One run of one variant, on all ranks; rank 0 prints."""
    layers, batch, steps = CASES[case]
    if kind == "torch":
        result = measure_torch(layers, batch, steps)
    else:
        result = measure_distnn(layers, batch, steps, kind == "alone", kind == "blocking")
    if result:
        print("RESULT", json.dumps(result), flush=True)


def main() -> None:
    """Start all variants by turns and tell the medians."""
    sys.path.insert(0, str(HERE.parents[1] / "system"))
    from cluster import Cluster

    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, default=1, help="on each host")
    parser.add_argument("--rate", default="1gbit")
    parser.add_argument("--torch", help="a Python with torch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", type=int, choices=range(len(CASES)))
    flags = parser.parse_args()
    kinds = ["alone", "blocking", "overlapped", *(["torch"] if flags.torch else [])]
    names = list(CASES)
    with Cluster(2, flags.rate) as cluster:
        for case in names if flags.case is None else [names[flags.case]]:
            times: dict[str, list[float]] = {}
            for _ in range(flags.rounds):
                for kind in kinds:
                    python = flags.torch if kind == "torch" else sys.executable
                    out = cluster.mpirun(
                        [flags.ranks] * 2, HERE, kind, case, python=python, timeout=120
                    )
                    told = [line for line in out.stdout.splitlines() if line[:6] == "RESULT"]
                    if not told:
                        sys.exit(f"{kind}: {out}")
                    for name, value in json.loads(told[0][6:]).items():
                        label = kind if name == "step" else name
                        times.setdefault(label, []).append(value)
            print(f"{case}: {flags.ranks} ranks on each of two hosts, {flags.rate}; ms per step")
            for label, values in times.items():
                spread = f"{min(values):.1f} to {max(values):.1f}"
                print(f"  {label:12} {statistics.median(values):8.1f}   ({spread})")


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[2] in CASES:
        worker(sys.argv[1], sys.argv[2])
    else:
        main()
