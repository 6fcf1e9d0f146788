"""Train a dense network: ``[mpirun -n N] python -m distnn.train [CONFIG.toml] [--flag value ...]``.

Rank 0 looks at flags, files and directory first; then all ranks build the same network, share the
data, and train.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distnn.command import on_first, run

if TYPE_CHECKING:
    from distnn.parallel.comm.communicator import Communicator
    from distnn.training.desk import Desk
    from distnn.training.recorder import Recorder


def train(comm: "Communicator", argv: Sequence[str]) -> None:
    """Train as the arguments say, on all ranks of the comm."""
    started = time.perf_counter()
    if not comm.is_first:
        load_what_all_need()
    desk = on_first(comm, lambda arguments: _open_desk(arguments, comm.size), argv)
    told = comm.broadcast(desk.tell() if desk else None)
    try:
        _train(comm, desk, told, started)
    finally:
        if desk is not None:
            desk.logbook.directory.release()


def load_what_all_need() -> None:
    """Import it while rank 0, which needs more, is at its desk."""
    from distnn.training import bits, evaluation, factory, loading, session  # noqa: F401


def _train(comm: "Communicator", desk: "Desk | None", told: dict[str, Any], started: float) -> None:
    from distnn.config.options import TrainConfig
    from distnn.errors import StopRequested
    from distnn.parallel.comm.shared_memory import SharedMemory
    from distnn.run.position import Position
    from distnn.training.bits import told_of_mixed_ranks
    from distnn.training.factory import build_network, build_optimizer, build_trainer
    from distnn.training.loading import Shape, load
    from distnn.training.session import shared_bytes

    config, shape = TrainConfig.from_dict(told["settings"]), Shape(**told["shape"])
    position = Position(**told["position"])
    comm.status.stall_timeout = config.stall_timeout
    network, optimizer = build_network(config, shape), build_optimizer(config)

    needed = shared_bytes(network, optimizer, comm, config) + shape.bytes(network.dtype.itemsize)
    comm = comm.with_memory(needed)
    loader = desk.loader if desk else None
    samples, test = load(comm, SharedMemory(comm), shape, loader, network.dtype)

    trainer = build_trainer(config, network, optimizer, comm)
    trainer.load_state(position, *(desk.logbook.vectors() if desk else (None, {})))
    session = trainer.open_session(comm)
    recorder = _open_recorder(comm, desk, session, len(samples))
    if mixed := told_of_mixed_ranks(comm):
        _say(mixed)
    before = dataclasses.replace(position)
    try:
        trainer.train(session, samples, test, config.epochs, recorder, shape.is_classification)
    except StopRequested as error:
        where = f"; go on with --run-dir {desk.logbook.directory.path} --resume" if desk else ""
        raise StopRequested(f"{error}{where}") from None
    session.collect_state()
    seconds, done = time.perf_counter() - started, session.items_since(before, len(samples))

    def finish() -> None:
        if desk is not None and recorder is not None:
            desk.finish(recorder, session, done, seconds)

    comm.on_first(finish)


def _open_desk(arguments: Sequence[str], ranks: int) -> "Desk":
    from distnn.training.desk import Desk

    return Desk.open(arguments, ranks)


def _open_recorder(
    comm: "Communicator", desk: "Desk | None", session: Any, items: int
) -> "Recorder | None":
    """The recorder, on rank 0."""

    def work() -> "Recorder":
        assert desk is not None
        return desk.recorder(session, items)

    return comm.on_first(work)


def _say(line: str) -> None:
    print(f"distnn.train: {line}", file=sys.stderr)


if __name__ == "__main__":
    run("train", train, begins_again=True)
