"""Measure a trained run: ``[mpirun -n N] python -m distnn.evaluate RUN_DIR [--data ...]``.

Prints one JSON object: the number of items, the mean loss, and accuracy or r2.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from distnn.command import on_first, run

if TYPE_CHECKING:
    from distnn.data.sources import Part
    from distnn.parallel.comm.communicator import Communicator
    from distnn.training.prediction import Trained


def evaluate(comm: "Communicator", argv: Sequence[str]) -> None:
    """Evaluate as the arguments say, on all ranks of the comm."""
    from distnn.training import prediction

    trained, part, is_own = on_first(comm, _open, argv) or (None, None, False)
    measures = prediction.evaluate(comm, trained, part, is_own)
    if comm.is_first:
        print(json.dumps(measures))


def _open(argv: Sequence[str]) -> "tuple[Trained, Part, bool]":
    """Rank 0: the run, the data set, and whether it is the run's own; raises InputError."""
    from distnn.config.command_line import parse_evaluate
    from distnn.config.toml_file import read_recorded
    from distnn.data.sources import open_data, open_test_data
    from distnn.errors import InputError
    from distnn.run.directory import RunDirectory
    from distnn.training.factory import table_options
    from distnn.training.prediction import Trained
    from distnn.training.saved import settings_of

    options = parse_evaluate(argv)
    trained = Trained.open(options.run_dir, options.checkpoint)
    preparation, columns = trained.preparation, table_options(trained.settings)
    if options.data is not None:
        target = options.target or trained.settings.target
        names = None if options.target else trained.target_names
        part = open_test_data(options.data, target, preparation, names, columns)
        return trained, trained.checked(part), False
    recorded = RunDirectory(options.run_dir).config  # where paths are in full
    config = read_recorded(recorded) if recorded.is_file() else settings_of(trained.checkpoint)
    target = options.target or config.target
    test = open_data(config.data, config.test_data, target, columns, preparation).test
    if test is None:
        raise InputError("has no test set", where=config.data, remedy="give one with --data")
    return trained, trained.checked(test), options.target in (None, config.target)


if __name__ == "__main__":
    run("evaluate", evaluate)
