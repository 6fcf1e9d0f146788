"""Train a dense network: ``[mpirun -n N] python -m distnn.train [CONFIG.toml] [--flag value ...]``.

Rank 0 looks at flags, files and directory first; then all ranks build the same network, share the
data, and train.
"""

import dataclasses
import logging
import os
import time
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from distnn.command import on_first, run

if TYPE_CHECKING:
    from distnn.parallel.comm.communicator import Communicator
    from distnn.training.loading import Loader
    from distnn.training.run_files import RunFiles

RUN_DIR = "DISTNN_RUN_DIR"  # of a job script, which cannot see what the config says

log = logging.getLogger("distnn.train")  # also where this is __main__


def train(comm: "Communicator", argv: Sequence[str]) -> None:
    """Train as the arguments say, on all ranks of the communicator."""
    started = time.perf_counter()
    if not comm.is_first:
        load_what_all_need()
    opened = on_first(comm, lambda words: open_run(words, comm.size), argv)
    shared, loader, files = opened if opened is not None else (None, None, None)
    from distnn.config.options import TrainConfig
    from distnn.errors import StopRequested
    from distnn.parallel.comm.shared_memory import SharedMemory
    from distnn.training.best import shared_at_end
    from distnn.training.consistency import mixed_ranks_message
    from distnn.training.factory import build_network, build_optimizer
    from distnn.training.loading import Shape, load
    from distnn.training.trainer import Trainer
    from distnn.training.training_data import TrainingData
    from distnn.training.vectors import vector_bytes
    from distnn.training.weighting import balance

    try:
        shared = comm.broadcast(shared)
        config, shape = TrainConfig.from_dict(shared["config"]), Shape(**shared["shape"])
        comm.status.stall_timeout = config.stall_timeout
        network, optimizer = build_network(config, shape), build_optimizer(config)
        needed = vector_bytes(network, optimizer, comm, config) + shape.bytes(network.dtype)
        needed += shared_at_end(network, 0 if shape.window else shape.train_items)
        comm = comm.with_memory(needed)
        memory = SharedMemory(comm)
        loaded = load(comm, memory, shape, loader, network.dtype, config)
        if config.class_weight is not None:
            balance(comm, memory, loaded.train)
        if message := mixed_ranks_message(comm):
            log.warning("%s", message)
        recorded = None if loader is None else loader.recorded
        classify, validation = shape.is_classification, loaded.validation
        data = TrainingData(loaded.train, loaded.test, classify, recorded, validation, loaded.units)
        trainer = Trainer(network, optimizer, comm=comm, config=config)
        for line in [] if loader is None else loader.description():
            log.info("%s", line)
        steps_before = 0 if files is None else files.position.steps
        with closing(loaded.train):
            _, summary = trainer.run(comm, data, config.epochs, files, started)
    except StopRequested as error:
        where = f"; go on with --run-dir {files.directory} --resume" if files else ""
        raise StopRequested(f"{error}{where}") from None
    finally:
        if files is not None:
            files.close()
    if files is not None and summary is not None:
        print(summary_text(summary, steps_before, str(files.directory)))


def load_what_all_need() -> None:
    """Import it while rank 0, which needs more, looks at its input."""
    from distnn.training import consistency, evaluation, factory, loading, trainer  # noqa: F401


def open_run(argv: Sequence[str], ranks: int) -> "tuple[dict[str, Any], Loader, RunFiles]":
    """Rank 0: check the command line and all that it names, before any work.

    Returns:
        What all ranks must know: the configuration with everything chosen, and the sizes of the
        data set. The data set, to be read. The run's files, claimed for this job.

    Raises:
        InputError: flags, files or directory cannot be used.
    """
    from distnn.config.command_line import parse_train
    from distnn.data.sources import open_data
    from distnn.errors import DistnnError
    from distnn.run.directory import default_path
    from distnn.training.factory import resolve
    from distnn.training.loading import Loader
    from distnn.training.opening import open_validation, rows_to_learn_from, table_options
    from distnn.training.run_files import RunFiles
    from distnn.training.slices import check_slices, chosen_slices, from_ranks_message
    from distnn.training.trace import checked
    from distnn.training.training_data import check_options

    config = parse_train(argv)
    run_dir = config.run_dir or os.environ.get(RUN_DIR)
    files = RunFiles(run_dir or default_path(config.data))
    if config.resume and not run_dir:
        log.warning("--resume without --run-dir: a new run begins in %s", files.directory)
    try:
        config = checked(files.open(config))
        if message := from_ranks_message(config.slices, config.batch_size, ranks):
            log.warning("%s", message)
        slices = chosen_slices(config.slices, config.batch_size, ranks)
        check_slices(slices, ranks, recorded=files.is_resumed)
        config = dataclasses.replace(config, slices=slices)
        options, preparation = table_options(config), files.preparation()
        which = config.data, config.test_data, config.target
        learnt_from = rows_to_learn_from(config)
        source = open_data(*which, options, preparation, config.window, learnt_from)
        loader = Loader.open(source, config, open_validation(config, source.train))
        loader.scaled_as = files.scaled_as(config)
        config = resolve(config, loader.shape())
        check_options(config, loader.shape().is_classification, loader.validation is not None)
        files.make()
    except DistnnError:
        files.close()
        raise
    return {"config": config.to_dict(), "shape": dataclasses.asdict(loader.shape())}, loader, files


def summary_text(summary: dict[str, Any], steps_before: int, directory: str) -> str:
    """The summary for people, a few lines: of the run and the steps of the jobs before this one."""
    from distnn.training.measures import measures_line

    loss = summary.get("train_loss")
    parts = [] if loss is None else [f"train loss {loss:.4g}"]
    if summary.get("best_epoch"):
        parts.append(f"best epoch {summary['best_epoch']}")
    if summary.get("stopped_early"):
        parts.append("stopped early: its patience is used up")
    lines = [", ".join(parts), *(measures_line(summary, part) for part in ("validation", "test"))]
    measures = "\n".join(filter(None, lines))
    noise = summary.get("noise_scale")
    advice = (
        f"gradient noise scale {noise:.0f} items, the median of the epochs: batches well above it "
        "save few steps (distnn/nn/optimizers/README.md)\n"
        if noise is not None
        else ""
    )
    epochs, steps, ranks, nodes, slices = (
        f"{summary[name]} {name if summary[name] != 1 else name[:-1]}"
        for name in ("epochs", "steps", "ranks", "nodes", "slices")
    )
    rate = summary["samples_per_second"]  # None where nothing was trained
    speed = "" if rate is None else f" in {summary['seconds']:.2f} s, {rate:.0f} samples/s"
    if steps_before:
        steps += f", {summary['steps'] - steps_before} of them in this job,"
    return (
        f"{epochs}, {steps} on {ranks} ({nodes}, {slices}){speed}\n"
        f"{measures}\n{advice}"
        f"weights sha256 {summary['weights_sha256']}\n"
        f"run in {directory}"
    )


if __name__ == "__main__":
    run("train", train, begins_again=True)
