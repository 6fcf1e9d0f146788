"""Measure a trained run: ``[mpirun -n N] python -m distnn.evaluate RUN_DIR [--data ...]``.

A table of all measures goes to standard error, for people; the same as one JSON object to standard
output, or with ``--json FILE`` to a file.
"""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distnn.command import on_first, run

if TYPE_CHECKING:
    from distnn.data.sources import Part
    from distnn.parallel.comm.communicator import Communicator
    from distnn.training.prediction import Trained


def evaluate(comm: "Communicator", argv: Sequence[str]) -> None:
    """Evaluate as the arguments say, on all ranks of the comm."""
    from distnn.training import prediction

    trained, part, is_own, path = on_first(comm, _open, argv) or (None, None, False, None)
    measures = prediction.evaluate(comm, trained, part, is_own)
    comm.on_first(lambda: _show(measures, path))


def _show(measures: dict[str, Any], path: str | None) -> None:
    from distnn.run.metrics import plain
    from distnn.training.measures import measures_text, write_measures

    print(measures_text(measures, ""), file=sys.stderr)
    if path is None:
        print(json.dumps(plain(measures), allow_nan=False))
    else:
        write_measures(path, measures)


def _open(argv: Sequence[str]) -> "tuple[Trained, Part, bool, str | None]":
    """Rank 0: run, data set, whether it is the run's own, file to write; raises InputError."""
    from dataclasses import replace

    from distnn.config.command_line import parse_evaluate
    from distnn.config.toml_file import read_recorded
    from distnn.data.sources import open_data, open_test_data
    from distnn.errors import InputError
    from distnn.run.directory import RunDirectory
    from distnn.training.loading import table_options
    from distnn.training.prediction import Trained
    from distnn.training.saved import settings_of

    options = parse_evaluate(argv)
    trained = Trained.open(options.run_dir, options.checkpoint)
    preparation, columns = trained.preparation, table_options(trained.settings)
    if options.data is not None:
        target = options.target or trained.settings.target
        names = None if options.target else trained.target_names
        columns = replace(columns, weight=options.weight)
        part = open_test_data(options.data, target, preparation, names, columns)
        return trained, trained.checked(part), False, options.json
    recorded = RunDirectory(options.run_dir).config  # where paths are in full
    config = read_recorded(recorded) if recorded.is_file() else settings_of(trained.checkpoint)
    target, weight = options.target or config.target, options.weight or config.weight
    columns = replace(columns, weight=weight)
    test = open_data(config.data, config.test_data, target, columns, preparation).test
    if test is None:
        raise InputError("has no test set", where=config.data, remedy="give one with --data")
    is_own = (target, weight) == (config.target, config.weight)
    return trained, trained.checked(test), is_own, options.json


if __name__ == "__main__":
    run("evaluate", evaluate)
