"""`python -m faulty KIND RANK PLACE COMMAND...`: distnn.train, but one rank goes wrong at a place.

The product knows nothing of this: functions of it are wrapped by name before its command starts.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from distnn.blas_threads import default_to_one


def go_wrong(kind: str, seconds: float = 0) -> None:
    """The fault itself; it must end the job, whatever happens on this rank afterwards."""
    time.sleep(seconds)
    Path(os.environ["DISTNN_FAULT"]).write_text(str(time.time()))
    if kind == "exception":
        raise RuntimeError("injected")
    if kind == "exit":
        sys.exit(0)
    if kind == "_exit":
        os._exit(0)
    if kind == "sleep":
        time.sleep(3600)
    os.kill(os.getpid(), getattr(signal, kind))
    time.sleep(0.5)  # where the signal stops or ends this process


def wrap(module: str, path: str, fault: Callable[..., None]) -> None:
    """Have `fault` called with the arguments of a function of distnn, before it."""
    *outer, name = path.split(".")
    holder = import_module(f"distnn.{module}")
    for one in outer:
        holder = getattr(holder, one)
    inner = getattr(holder, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        fault(*args)
        return inner(*args, **kwargs)

    setattr(holder, name, wrapped)


def main(kind: str, rank: int, place: str) -> None:
    own = int(os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK", "0")))
    calls = iter(range(1_000_000))

    def after(number: int, seconds: float = 0) -> Callable[..., None]:
        def fault(*args: Any) -> None:
            if own == rank and next(calls) == number:
                go_wrong(kind, seconds)

        return fault

    if place == "first line":
        # later, so that the others have come to theirs: before, nobody is there who could tell
        wrap("command", "default_to_one", after(0, 0.5))
    elif place == "start-up":
        wrap("command", "_join", after(0, 0.5))
    elif place == "arguments":
        wrap("parallel.comm.communicator", "Communicator.on_first", after(0))
    elif place == "first step":
        wrap("training.session", "Session.step", after(0))
    elif place == "finish":
        wrap("command", "_flush", after(0))
    elif place == "start":
        wrap("training.loading", "load", after(0))
    elif place == "step":
        wrap("training.session", "Session.step", after(7))
    elif place == "evaluation":
        wrap("training.evaluation", "Evaluation._sums", after(1))
    elif place == "window":  # in the thread that reads ahead
        wrap("training.streamed", "StreamedDataset._read_block", after(9))
    elif rank == 0:  # in the middle of the second file
        wrap("run.checkpoint", "_write_all", after(12))
    else:  # writes no file, but all ranks have to hand over their states
        wrap("training.session", "Session.collect_state", after(1))


if __name__ == "__main__":
    default_to_one()  # before the wrapped modules load numpy
    kind, rank, place, *arguments = sys.argv[1:]
    main(kind, int(rank), place)
    from distnn.command import run
    from distnn.train import train

    sys.argv[1:] = arguments
    run("train", train, begins_again=True)
