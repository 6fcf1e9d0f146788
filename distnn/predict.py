"""Predict new rows: ``[mpirun -n N] python -m distnn.predict RUN_DIR --data FILE --output FILE``.

Writes class numbers, or real outputs in the units of the training targets, one row for each row
of the data, to a .csv or .npy file.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from distnn.command import on_first, run

if TYPE_CHECKING:
    from distnn.config.options import PredictConfig
    from distnn.data.rows import Rows
    from distnn.parallel.comm.communicator import Communicator
    from distnn.training.prediction import Trained


def predict(comm: "Communicator", argv: Sequence[str]) -> None:
    """Predict as the arguments say, on all ranks of the comm."""
    import numpy as np

    from distnn.parallel.comm.shared_memory import SharedMemory
    from distnn.training.prediction import (
        load_rows,
        needed_bytes,
        outputs,
        share_network,
        write_predictions,
    )

    trained, rows, asked = on_first(comm, _open, argv) or (None, None, None)
    told = comm.broadcast(trained and rows and trained.meta() | {"items": len(rows)})
    comm = comm.with_memory(needed_bytes(told["network"], told["items"]))
    memory = SharedMemory(comm)
    network = share_network(comm, memory, told["network"], trained)
    X = load_rows(comm, memory, network, told["items"], trained, rows)
    with np.errstate(all="ignore"):
        A = outputs(comm, network, X)

    def save() -> None:
        assert trained is not None
        assert asked is not None
        assert A is not None
        write_predictions(asked.output, trained, A, asked.probabilities)

    comm.on_first(save)


def _open(argv: Sequence[str]) -> "tuple[Trained, Rows, PredictConfig]":
    """Rank 0: the run and the rows; raises InputError."""
    from distnn.config.command_line import parse_predict
    from distnn.data.sources import open_features
    from distnn.errors import InputError
    from distnn.training.prediction import Trained

    asked: PredictConfig = parse_predict(argv)
    trained = Trained.open(asked.run_dir, asked.checkpoint)
    if asked.probabilities and not trained.is_classification:
        raise InputError("the run is a regression", where="--probabilities", remedy="leave it out")
    features, _ = trained.column_names()
    return trained, open_features(asked.data, trained.network.layers[0], features), asked


if __name__ == "__main__":
    run("predict", predict)
