"""Predict new rows: ``[mpirun -n N] python -m distnn.predict RUN_DIR --data FILE --output FILE``.

Writes names of classes, or real outputs in the units of the training targets, one row for each row
of the data, to a .csv or .npy file.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from distnn.command import on_first, run

if TYPE_CHECKING:
    from distnn.config.commands import PredictConfig
    from distnn.data.rows import Rows
    from distnn.parallel.comm.communicator import Communicator
    from distnn.training.prediction import Trained

    Ids = tuple[str, list[str]] | None  # name and values of a column


def predict(comm: "Communicator", argv: Sequence[str]) -> None:
    """Predict as the arguments say, on all ranks of the comm."""
    from distnn.training import prediction
    from distnn.training.output import write_predictions

    trained, rows, ids, options = on_first(comm, _open, argv) or (None, None, None, None)
    A = prediction.predict(comm, trained, rows)

    def save() -> None:
        assert trained is not None
        assert options is not None
        assert A is not None
        write_predictions(options.output, trained, A, options.probabilities, ids)
        print(f"{len(A)} rows written to {options.output}, {trained.weights_text}")

    comm.on_first(save)


def _open(argv: Sequence[str]) -> "tuple[Trained, Rows, Ids, PredictConfig]":
    """Rank 0: the run, the rows and what is copied in front of them; raises InputError."""
    from distnn.config.command_line import parse_predict
    from distnn.data.sources import open_features, read_texts
    from distnn.errors import InputError
    from distnn.training.opening import table_options
    from distnn.training.prediction import Trained

    options = parse_predict(argv)
    trained = Trained.open(options.run_dir, options.checkpoint)
    if options.probabilities and not trained.is_classification:
        raise InputError("the run is a regression", where="--probabilities", remedy="leave it out")
    delimiter = table_options(trained.settings).delimiter
    width = trained.network.layers[0]
    rows = open_features(options.data, width, trained.preparation, delimiter)
    ids = None
    if options.id is not None:
        if options.output.endswith(".npy"):
            raise InputError("an .npy file has no place for it", "--id", "give a .csv --output")
        ids = options.id, read_texts(options.data, options.id, delimiter)
    if _is_input(options.output, options.data):
        raise InputError("is the file with the rows", options.output, "give another --output")
    if os.path.isfile(options.output) and not options.force:
        remedy = "give another --output, or --force to replace it"
        raise InputError("is there already", options.output, remedy)
    return trained, rows, ids, options


def _is_input(output: str, data: str) -> bool:
    """Whether a file is the data set, or lies in its folder."""
    if not os.path.exists(output) or not os.path.exists(data):
        return False
    folder = os.path.dirname(os.path.realpath(output))
    return os.path.samefile(output, data) or os.path.samefile(folder, data)


if __name__ == "__main__":
    run("predict", predict)
