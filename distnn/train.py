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
    desk, told = _open_desk(comm, argv)
    try:
        _train(comm, desk, told, started)
    finally:
        if desk is not None:
            desk.logbook.directory.release()


def load_what_all_need() -> None:
    """Import it while rank 0, which needs more, is at its desk."""
    from distnn.training import bits, evaluation, factory, loading, session  # noqa: F401


def _train(comm: "Communicator", desk: "Desk | None", told: dict[str, Any], started: float) -> None:
    from distnn.config.options import Settings
    from distnn.errors import StopRequested
    from distnn.parallel.comm.shared_memory import SharedMemory
    from distnn.training.bits import told_of_mixed_ranks
    from distnn.training.factory import build_network, build_optimizer, build_trainer
    from distnn.training.loading import Shape, load
    from distnn.training.session import Position, needed_bytes

    settings, shape = Settings.from_dict(told["settings"]), Shape(**told["shape"])
    position = Position(**told["position"])
    comm.status.stall_timeout = settings.stall_timeout
    network, optimizer = build_network(settings, shape), build_optimizer(settings)

    slices, data = settings.slices or comm.size, shape.bytes(network.dtype.itemsize)
    needed = needed_bytes(network, optimizer, comm, slices, settings.update, data)
    comm = comm.with_memory(needed, _say)
    loader = desk.loader if desk else None
    samples, test = load(comm, SharedMemory(comm), shape, loader, network.dtype)

    trainer = build_trainer(settings, network, optimizer, comm)
    trainer.go_on(position, *(desk.logbook.vectors() if desk else (None, {})))
    session = trainer.open_session(comm)
    recorder = _open_recorder(comm, desk, session, len(samples))
    if mixed := told_of_mixed_ranks(comm):
        _say(mixed)
    before = dataclasses.replace(position)
    try:
        trainer.train(session, samples, test, settings.epochs, recorder, shape.is_classification)
    except StopRequested as error:
        where = f"; go on with --run-dir {desk.logbook.directory.path} --resume" if desk else ""
        raise StopRequested(f"{error}{where}") from None
    session.collect_state()
    seconds, done = time.perf_counter() - started, session.items_since(before, len(samples))

    def finish() -> None:
        if desk is not None and recorder is not None:
            desk.finish(recorder, session, done, seconds)

    comm.on_first(finish)


def _open_desk(comm: "Communicator", argv: Sequence[str]) -> "tuple[Desk | None, dict[str, Any]]":
    """The desk, on rank 0, and what it tells all ranks."""
    desks: list[Desk] = []

    def work(arguments: Sequence[str]) -> dict[str, Any]:
        from distnn.training.desk import Desk

        desks.append(Desk.open(arguments, comm.size))
        return desks[0].tell()

    told = on_first(comm, work, argv)
    return desks[0] if desks else None, told


def _open_recorder(
    comm: "Communicator", desk: "Desk | None", session: Any, items: int
) -> "Recorder | None":
    """The recorder, on rank 0."""
    recorders: list[Recorder] = []

    def work() -> None:
        assert desk is not None
        recorders.append(desk.recorder(session, items))

    comm.on_first(work)
    return recorders[0] if recorders else None


def _say(line: str) -> None:
    print(f"distnn.train: {line}", file=sys.stderr)


if __name__ == "__main__":
    run("train", train, begins_again=True)
