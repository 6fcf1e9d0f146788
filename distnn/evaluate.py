"""Measure a trained run: ``[mpirun -n N] python -m distnn.evaluate RUN_DIR [--data ...]``.

Prints one JSON object: the number of items, the mean loss, and accuracy or r2.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from distnn.command import on_first, run

if TYPE_CHECKING:
    from distnn.config.options import EvaluateConfig
    from distnn.data.sources import Part
    from distnn.parallel.comm.communicator import Communicator
    from distnn.training.prediction import Trained


def evaluate(comm: "Communicator", argv: Sequence[str]) -> None:
    """Evaluate as the arguments say, on all ranks of the comm."""
    import numpy as np

    from distnn.parallel.comm.shared_memory import SharedMemory
    from distnn.training.evaluation import Evaluation
    from distnn.training.prediction import load_samples, needed_bytes, share_network

    trained, part = on_first(comm, _open, argv) or (None, None)
    told = comm.broadcast(trained and part and trained.meta() | {"items": len(part.x)})
    comm = comm.with_memory(needed_bytes(told["network"], told["items"]))
    memory = SharedMemory(comm)
    network = share_network(comm, memory, told["network"], trained)
    samples = load_samples(comm, memory, network, told["items"], trained, part)
    with np.errstate(all="ignore"):
        measures = Evaluation(comm, network, samples, "", told["classify"]).measure()
    if comm.is_first:
        print(json.dumps({"items": len(samples), **measures}))


def _open(argv: Sequence[str]) -> "tuple[Trained, Part]":
    """Rank 0: the run and the data set; raises InputError."""
    from distnn.config.command_line import parse_evaluate
    from distnn.config.options import TrainConfig
    from distnn.data.sources import Part, check_features, open_data, open_test_data
    from distnn.errors import InputError
    from distnn.training.prediction import Trained

    asked: EvaluateConfig = parse_evaluate(argv)
    trained = Trained.open(asked.run_dir, asked.checkpoint)
    if asked.data is not None:
        part = open_test_data(asked.data, asked.target, *trained.column_names())
    else:
        told = TrainConfig.from_dict(trained.checkpoint.meta["settings"])
        source = open_data(told.data, told.test_data, asked.target or told.target)
        if source.x_test is None or source.y_test is None:
            raise InputError("has no test set", where=told.data, remedy="give one with --data")
        part = Part(source.x_test, source.y_test, source.y_test_where)
    check_features(part.x, trained.network.layers[0])
    return trained, part


if __name__ == "__main__":
    run("evaluate", evaluate)
