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

    trained, part, name, own, path = on_first(comm, _open, argv) or (None, None, "", "", None)
    measures = prediction.evaluate(comm, trained, part, own)
    comm.on_first(lambda: _show(trained, name, measures, path))


def _show(trained: "Trained | None", name: str, measures: dict[str, Any], path: str | None) -> None:
    from distnn.run.metrics import plain
    from distnn.training.measures import measures_text, write_measures

    assert trained is not None
    names = trained.class_names if trained.is_classification else trained.target_names
    print(f"{name}, {trained.weights_text}", file=sys.stderr)
    print(measures_text(measures, "", names), file=sys.stderr)
    if path is None:
        print(json.dumps(plain(measures), allow_nan=False))
    else:
        write_measures(path, measures)


def _open(argv: Sequence[str]) -> "tuple[Trained, Part, str, str, str | None]":
    """Rank 0: run, data set, its name, which set of the run it is, file to write."""
    from dataclasses import replace

    from distnn.config.command_line import parse_evaluate
    from distnn.config.toml_file import read_recorded
    from distnn.data.sources import open_test_data
    from distnn.run.directory import RunDirectory
    from distnn.training.opening import measured_part, table_options
    from distnn.training.prediction import Trained
    from distnn.training.saved import settings_of

    options = parse_evaluate(argv)
    trained = Trained.open(options.run_dir, options.checkpoint)
    preparation, columns = trained.preparation, table_options(trained.settings)
    if options.data is not None:
        target = options.target or trained.settings.target
        names = None if options.target else trained.target_names
        columns = replace(columns, weight=options.weight or columns.weight)
        part = open_test_data(options.data, target, preparation, names, columns)
        return trained, trained.checked(part), options.data, "", options.json
    recorded = RunDirectory(options.run_dir).config  # where paths are in full
    config = read_recorded(recorded) if recorded.is_file() else settings_of(trained.checkpoint)
    target, weight = options.target or config.target, options.weight or config.weight
    part, is_test = measured_part(replace(config, target=target, weight=weight), preparation)
    name = "test" if is_test else "validation"
    own = name if (target, weight) == (config.target, config.weight) else ""
    return trained, trained.checked(part), f"{name} set", own, options.json


if __name__ == "__main__":
    run("evaluate", evaluate)
