"""What it costs not to hang: `mpirun -n 2 python tests/benchmarks/overhead.py [EPOCHS]`.

784-128-10, batch 64, Adam. Two trainings in one process, one with the watchdog, the signals and
the digest of its checkpoints, one without. They take turns after every third of an epoch, so that
both run under the same conditions; each writes a checkpoint per epoch. The watchdog looks every
0.1 s, and not every 0.5 s, so that each third has its looks. Prints the median, over the epochs, of
the ratio of their times, with the interval in which the true median lies with 95 %.
"""

import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from distnn.blas_threads import default_to_one

default_to_one()

import numpy as np  # noqa: E402

from distnn import Adam, Network, Trainer  # noqa: E402
from distnn.parallel.comm.communicator import SHARED_MEMORY  # noqa: E402
from distnn.parallel.comm.shared_memory import SharedMemory  # noqa: E402
from distnn.parallel.comm.status import RankStatus  # noqa: E402
from distnn.parallel.watchdog import watchdog as stall  # noqa: E402
from distnn.parallel.watchdog.signals import StopSignals  # noqa: E402
from distnn.parallel.watchdog.watchdog import Watchdog  # noqa: E402
from distnn.run import checkpoint  # noqa: E402
from distnn.run.background import BackgroundWriter  # noqa: E402
from distnn.run.directory import RunDirectory  # noqa: E402
from distnn.training.arrays import from_arrays  # noqa: E402

THIRDS, STEPS = 3, 313  # an epoch of 60,000 items has 938 steps
ROWS = 64 * 60  # they fit into the cache: memory is the part of a machine that others share most
LOOK = 0.1  # seconds
DIGEST, STEP = checkpoint.digest, RankStatus.step


def third(session: Any, writer: BackgroundWriter | None, saves: bool) -> float:
    """Seconds of a third of an epoch, perhaps with a checkpoint in its first step."""
    session.position.step = 0
    session.begin_epoch(epochs=1)
    session.comm.mpi.Barrier()
    start = time.perf_counter()
    for number in range(STEPS):
        session.position.step = number % (ROWS // 64)
        session.step()
        if saves and number == 0:
            session.collect_state()
            if writer is not None:
                vectors = {"W": session.exchange.weights, **session.exchange.state}
                writer.save(vectors, {}, {}, session.position)
    session.comm.mpi.Barrier()
    seconds = time.perf_counter() - start
    session.collect_losses()
    if writer is not None:
        writer.unsaved_message()
    return seconds


def measure(trainer: Trainer, epochs: int, folder: str) -> None:
    draw = np.random.default_rng(0)
    X = draw.random((ROWS, 784), np.float32)
    comm = trainer.comm
    samples = from_arrays(comm, SharedMemory(comm), trainer.network, X, draw.integers(0, 10, ROWS))
    session = trainer.open_session(comm, samples)
    writer = None
    if comm.is_first:
        writer = BackgroundWriter(RunDirectory(Path(folder)), 1, session.position, ())

    def on(saves: bool) -> float:
        checkpoint.digest, RankStatus.step = DIGEST, STEP
        watch = Watchdog(comm, ends_job=False)
        StopSignals(watch, begins_again=True)
        seconds = third(session, writer, saves)
        watch.close()
        return seconds

    def off(saves: bool) -> float:
        checkpoint.digest, RankStatus.step = (lambda *_: ""), (lambda *_: None)
        return third(session, writer, saves)

    stall.INTERVAL = LOOK
    with np.errstate(all="ignore"):
        off(saves=True)
        results = []
        for epoch in range(epochs):
            seconds = {on: 0.0, off: 0.0}
            for number in range(THIRDS):  # on off, off on, ...
                turns = (on, off) if (epoch + number) % 2 else (off, on)
                for turn in turns:
                    seconds[turn] += turn(saves=number == 0)
            results.append((seconds[on], seconds[off]))
    if comm.is_first:
        tell(results)


def tell(results: list[tuple[float, float]]) -> None:
    """Medians, and the interval of the median of the ratios, from the ranks of its bounds."""
    count = len(results)
    step = [
        1e6 * statistics.median(column) / (THIRDS * STEPS) for column in zip(*results, strict=True)
    ]
    ratios = sorted(100 * (on / off - 1) for on, off in results)
    low = max(0, math.floor(count / 2 - 0.98 * math.sqrt(count)))
    print(f"step with {step[0]:.1f} us, without {step[1]:.1f} us; median of {count} epochs "
          f"{statistics.median(ratios):+.2f} % "
          f"(95 %: {ratios[low]:+.2f} to {ratios[count - 1 - low]:+.2f} %)")  # fmt: skip


if __name__ == "__main__":
    network = Network([784, 128, 10], seed=0)
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as folder:
        epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 40
        measure(Trainer(network, Adam(1e-4), batch_size=64), epochs, folder)
