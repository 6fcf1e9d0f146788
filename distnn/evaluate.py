"""Measure a trained run: ``[mpirun -n N] python -m distnn.evaluate RUN_DIR [--data ...]``.

Prints one JSON object: the number of items, the mean loss, and accuracy or r2.
"""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .command import on_first, run

if TYPE_CHECKING:
    from .data.sources import Part
    from .inference import Trained
    from .parallel.team import Team
    from .run.settings import EvaluateSettings


def evaluate(team: "Team", argv: Sequence[str]) -> None:
    """Evaluate as the arguments say, on all ranks of the team."""
    import numpy as np

    from .evaluation import Evaluation
    from .inference import load_samples, needed_bytes, share_network
    from .parallel.memory import SharedMemory

    opened: list[tuple[Trained, Part]] = []

    def work(arguments: Sequence[str]) -> dict[str, Any]:
        opened.append(_open(arguments))
        trained, part = opened[0]
        return trained.meta() | {"items": len(part.x)}

    told = on_first(team, work, argv)
    trained, part = opened[0] if opened else (None, None)
    team = team.with_memory(needed_bytes(told["network"], told["items"]), _say)
    memory = SharedMemory(team)
    network = share_network(team, memory, told["network"], trained)
    samples = load_samples(team, memory, network, told["items"], trained, part)
    with np.errstate(all="ignore"):
        measures = Evaluation(team, network, samples, "", told["classify"]).measure()
    if team.is_first:
        print(json.dumps({"items": len(samples), **measures}))


def _open(argv: Sequence[str]) -> "tuple[Trained, Part]":
    """Rank 0: the run and the data set; raises InputError."""
    from .data.sources import Part, check_features, open_data, open_test_data
    from .errors import InputError
    from .inference import Trained
    from .run.settings import Settings, parse_evaluate

    asked: EvaluateSettings = parse_evaluate(argv)
    trained = Trained.open(asked.run_dir, asked.checkpoint)
    if asked.data is not None:
        part = open_test_data(asked.data, asked.target, *trained.column_names())
    else:
        told = Settings.from_dict(trained.checkpoint.meta["settings"])
        source = open_data(told.data, told.test_data, asked.target or told.target)
        if source.x_test is None or source.y_test is None:
            raise InputError("has no test set", where=told.data, remedy="give one with --data")
        part = Part(source.x_test, source.y_test, source.y_test_where)
    check_features(part.x, trained.network.layers[0])
    return trained, part


def _say(line: str) -> None:
    print(f"distnn.evaluate: {line}", file=sys.stderr)


if __name__ == "__main__":
    run("evaluate", evaluate)
