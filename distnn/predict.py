"""Predict new rows: ``[mpirun -n N] python -m distnn.predict RUN_DIR --data FILE --output FILE``.

Writes class numbers, or real outputs in the units of the training targets, one row for each row
of the data, to a .csv or .npy file.
"""

import os
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
    from distnn.training import prediction

    trained, rows, options = on_first(comm, _open, argv) or (None, None, None)
    A = prediction.predict(comm, trained, rows)

    def save() -> None:
        assert trained is not None
        assert options is not None
        assert A is not None
        prediction.write_predictions(options.output, trained, A, options.probabilities)

    comm.on_first(save)


def _open(argv: Sequence[str]) -> "tuple[Trained, Rows, PredictConfig]":
    """Rank 0: the run and the rows; raises InputError."""
    from distnn.config.command_line import parse_predict
    from distnn.data.sources import open_features
    from distnn.errors import InputError
    from distnn.training.prediction import Trained

    options = parse_predict(argv)
    trained = Trained.open(options.run_dir, options.checkpoint)
    if options.probabilities and not trained.is_classification:
        raise InputError("the run is a regression", where="--probabilities", remedy="leave it out")
    features, _ = trained.column_names()
    rows = open_features(options.data, trained.network.layers[0], features)
    there = os.path.exists(options.output)
    if there and os.path.exists(options.data) and os.path.samefile(options.output, options.data):
        raise InputError("is the file with the rows", options.output, "give another --output")
    if os.path.isfile(options.output) and not options.force:
        remedy = "give another --output, or --force to replace it"
        raise InputError("is there already", options.output, remedy)
    return trained, rows, options


if __name__ == "__main__":
    run("predict", predict)
