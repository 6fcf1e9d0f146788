"""Predict new rows: ``[mpirun -n N] python -m distnn.predict RUN_DIR --data FILE --output FILE``.

Writes class numbers, or real outputs in the units of the training targets, one row for each row
of the data, to a .csv or .npy file.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .command import on_first, run

if TYPE_CHECKING:
    from .data.rows import Rows
    from .inference import Trained
    from .parallel.team import Team
    from .run.settings import PredictSettings


def predict(team: "Team", argv: Sequence[str]) -> None:
    """Predict as the arguments say, on all ranks of the team."""
    import numpy as np

    from .inference import load_rows, needed_bytes, outputs, share_network, write_predictions
    from .parallel.memory import SharedMemory

    opened: list[tuple[Trained, Rows, PredictSettings]] = []

    def work(arguments: Sequence[str]) -> dict[str, Any]:
        opened.append(_open(arguments))
        trained, rows, _ = opened[0]
        return trained.meta() | {"items": len(rows)}

    told = on_first(team, work, argv)
    trained, rows, asked = opened[0] if opened else (None, None, None)
    team = team.with_memory(needed_bytes(told["network"], told["items"]), _say)
    memory = SharedMemory(team)
    network = share_network(team, memory, told["network"], trained)
    X = load_rows(team, memory, network, told["items"], trained, rows)
    with np.errstate(all="ignore"):
        A = outputs(team, network, X)

    def save() -> None:
        assert trained is not None
        assert asked is not None
        assert A is not None
        write_predictions(asked.output, trained, A, asked.probabilities)

    team.on_first(save)


def _open(argv: Sequence[str]) -> "tuple[Trained, Rows, PredictSettings]":
    """Rank 0: the run and the rows; raises InputError."""
    from .data.sources import open_features
    from .errors import InputError
    from .inference import Trained
    from .run.settings import parse_predict

    asked: PredictSettings = parse_predict(argv)
    trained = Trained.open(asked.run_dir, asked.checkpoint)
    if asked.probabilities and not trained.is_classification:
        raise InputError("the run is a regression", where="--probabilities", remedy="leave it out")
    features, _ = trained.column_names()
    return trained, open_features(asked.data, trained.network.layers[0], features), asked


def _say(line: str) -> None:
    print(f"distnn.predict: {line}", file=sys.stderr)


if __name__ == "__main__":
    run("predict", predict)
