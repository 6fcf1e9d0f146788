"""What many ranks on a node, and many nodes, cost: processor time per rank, messages per node.

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python tests/benchmarks/wide.py
        [--ranks 8 16 32 64 128] [--nodes 2 4 8 16]

For more ranks than this machine has cores: they take turns, so that seconds on the clock say
nothing, and processor seconds per rank are counted instead. Nothing should grow faster than
linearly in the ranks of a node, or in the nodes. Nodes are ranks that do not share memory,
on this one machine. The network is 784-30-10, its update by each rank.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
LAYERS, STEPS, WAITS = [784, 30, 10], 20, 50


def seconds_of(work: Any, times: int) -> float:
    """Processor seconds of this rank per call, all threads and the system's part together."""
    before = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - before) / times


def worker(nodes: int) -> None:
    """On every rank; rank 0 prints the figures, means over the ranks."""
    started = time.process_time()
    import numpy as np

    from distnn import SGD, Network
    from distnn.config.options import TrainConfig
    from distnn.parallel.comm.barrier import Barrier
    from distnn.parallel.comm.communicator import Communicator
    from distnn.parallel.comm.mpi import MPI
    from distnn.parallel.comm.shared_memory import SharedMemory
    from distnn.parallel.watchdog.watchdog import Watchdog
    from distnn.training.arrays import from_arrays
    from distnn.training.session import Session

    comm = Communicator(shared=nodes == 0)
    watchdog = Watchdog(comm)
    startup = time.process_time() - started
    memory = SharedMemory(comm)
    barrier = Barrier(memory)
    waits = seconds_of(barrier.wait, WAITS)
    network, batch = Network(LAYERS, activation="sigmoid"), 2 * comm.size
    config = TrainConfig(batch_size=batch, slices=comm.size, update="sharded")
    session = Session(comm, network, SGD(0.1), config)
    X, T = np.zeros((batch, LAYERS[0]), np.float32), np.zeros(batch, int)
    dataset = from_arrays(comm, memory, network, X, T)
    session.start(None, dataset)
    session.begin_epoch(epochs=1)

    def step() -> None:
        session.position.step = 0
        session.step()

    with np.errstate(all="ignore"):
        step()
        steps = seconds_of(step, STEPS)
        session.exchange.flush()
    own = np.array([startup, waits, steps])
    comm.mpi.Allreduce(MPI.IN_PLACE, own)
    engine = getattr(session.exchange, "_engine", None)
    messages = 0 if engine is None else len(engine._sends)
    session.close()
    memory.close()
    watchdog.leave()
    if comm.rank == 0:
        names = ["startup", "barrier", "step"]
        figures = dict(zip(names, (own / comm.size).tolist(), strict=True))
        print(json.dumps(figures | {"messages": messages}), flush=True)


def main() -> None:
    """A table by ranks of one node, and one by nodes of one rank."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="*", default=[8, 16, 32, 64, 128])
    parser.add_argument("--nodes", type=int, nargs="*", default=[2, 4, 8, 16])
    flags = parser.parse_args()
    beside = Path(sys.executable).with_name("mpirun")
    mpirun = str(beside) if beside.exists() else shutil.which("mpirun") or "mpirun"
    env = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    print("processor milliseconds per rank: start-up, a barrier, a step; messages per step")
    for name, counts, nodes in (("ranks", flags.ranks, 0), ("nodes", flags.nodes, 1)):
        for count in counts:
            command = [mpirun, "-n", str(count), sys.executable, str(HERE), "worker", str(nodes)]
            start = time.perf_counter()
            run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
            seconds = time.perf_counter() - start
            if run.returncode:
                sys.exit(run.stdout + run.stderr)
            figures = json.loads(run.stdout.splitlines()[-1])
            print(
                f"{count:4} {name}: start-up {1e3 * figures['startup']:8.1f}, "
                f"barrier {1e3 * figures['barrier']:7.3f}, step {1e3 * figures['step']:7.3f}, "
                f"{figures['messages']:3} messages; {seconds:.1f} s on the clock",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(int(sys.argv[2]))
    else:
        main()
