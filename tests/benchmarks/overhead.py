"""What it costs not to hang: `mpirun -n 2 python tests/benchmarks/overhead.py [PAIRS]`.

784-128-10, batch 64, Adam. Blocks of 938 steps, an epoch of 60,000 items, each with a checkpoint in
its first step, once with the stall watch, the signals and the digest of the checkpoint, once
without, in turns in one process. Prints the median time of a step, and the median of the
differences of neighbours.
"""

import statistics
import sys
import tempfile
import time
from io import StringIO
from pathlib import Path
from typing import Any

from distnn.threads import default_to_one

default_to_one()

import numpy as np  # noqa: E402

from distnn import Adam, Network, Trainer  # noqa: E402
from distnn.parallel.board import Here  # noqa: E402
from distnn.parallel.memory import SharedMemory  # noqa: E402
from distnn.parallel.watch import Watch  # noqa: E402
from distnn.recorder import Recorder  # noqa: E402
from distnn.run import checkpoint  # noqa: E402
from distnn.run.directory import RunDirectory  # noqa: E402
from distnn.run.progress import Progress  # noqa: E402
from distnn.samples import from_arrays  # noqa: E402
from distnn.signals import StopSignals  # noqa: E402

STEPS = 938
ITEMS = 64 * STEPS
DIGEST, STEP = checkpoint.digest, Here.step


def block(session: Any, samples: Any, recorder: Recorder | None) -> float:
    """Seconds of one step, over the steps of an epoch with a checkpoint."""
    session.position.step = 0
    session.begin_epoch(samples)
    session.team.comm.Barrier()
    start = time.perf_counter()
    for number in range(STEPS):
        session.step(samples, 10**9, 0)
        if number == 0:
            session.collect_state()
            if recorder is not None:
                state = session.exchange.state
                recorder.checkpoint(session.network.weights, state, session.position)
    session.team.comm.Barrier()
    seconds = time.perf_counter() - start
    session.collect_losses(10**9)
    if recorder is not None:
        recorder.unsaved()
    return seconds / STEPS


def measure(trainer: Trainer, pairs: int, folder: str) -> None:
    draw = np.random.default_rng(0)
    X = draw.random((ITEMS, 784), np.float32)
    team = trainer.team
    samples = from_arrays(team, SharedMemory(team), trainer.network, X, draw.integers(0, 10, ITEMS))
    session = trainer.open_session(team)
    recorder = None
    if team.is_first:
        progress = Progress("off", StringIO(), 1, STEPS)
        recorder = Recorder(RunDirectory(Path(folder)), 1, {}, {}, progress)

    def on() -> float:
        checkpoint.digest, Here.step = DIGEST, STEP
        watch = Watch(team, ends_job=False)
        StopSignals(watch)
        seconds = block(session, samples, recorder)
        watch.close()
        return seconds

    def off() -> float:
        checkpoint.digest, Here.step = (lambda *_: ""), (lambda *_: None)
        return block(session, samples, recorder)

    with np.errstate(all="ignore"):
        off()
        results = []
        for number in range(pairs):  # on off, off on, ...
            first = (on(), off()) if number % 2 else (off(), on())[::-1]
            results.append(first)
    if team.is_first:
        median = [1e6 * statistics.median(column) for column in zip(*results, strict=True)]
        difference = statistics.median(a / b - 1 for a, b in results)
        print(f"step with {median[0]:.1f} us, without {median[1]:.1f} us; "
              f"median of {pairs} differences {100 * difference:+.2f} %")  # fmt: skip


if __name__ == "__main__":
    network = Network([784, 128, 10], seed=0)
    with tempfile.TemporaryDirectory() as folder:
        pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 40
        measure(Trainer(network, Adam(1e-4), batch_size=64), pairs, folder)
