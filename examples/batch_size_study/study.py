"""Does a larger batch cost accuracy, and what helps? Trains a grid of cells, and may be stopped.

    python examples/batch_size_study/study.py --data digits --grid quick
    python examples/batch_size_study/study.py --data FOLDER_OF_IDX_FILES --name fashion-mnist
    mpirun -n 2 python -m mpi4py examples/batch_size_study/study.py ... --timing

A cell is (budget, optimizer, batch size): with a budget of epochs, or of steps. The learning rates
RATES, times the optimizer's own and times sqrt(batch / 64), are tried with one seed on a tenth of
the training rows that is held out; the best one is trained with each seed on all rows and measured
on the test rows. Each training is a line of RESULTS/NAME.jsonl; what is there is not done again.
`draw.py` draws what is there.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mpi4py import MPI

from distnn import DivergenceError, Network, Trainer
from distnn.data.sources import open_data
from distnn.nn.optimizers import OPTIMIZERS

HERE = Path(__file__).parent
RATES = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
BASE = 64  # the batch size that rates are given for
SLICES = 8
RECIPES: dict[str, dict[str, Any]] = {
    "warmup": {"warmup_epochs": 2.0, "schedule": "cosine"},  # the usual of large batches
    "short": {"warmup_epochs": 0.5, "schedule": "cosine"},  # where an epoch has few steps
    # from batches of 64 by the same factor from epoch to epoch: half the epochs, or most
    "growing": {"warmup_epochs": 0.5, "schedule": "cosine", "batch_warmup_epochs": 5},
    "growing-long": {"warmup_epochs": 0.5, "schedule": "cosine", "batch_warmup_epochs": 8},
}


class Data(NamedTuple):
    """Rows and targets: for training without and with the held-out tenth, held out, for testing."""

    part: tuple[np.ndarray, np.ndarray]
    train: tuple[np.ndarray, np.ndarray]
    held: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: int  # 0 for real targets


class Grid(NamedTuple):
    """What is trained."""

    batches: tuple[int, ...]
    seeds: tuple[int, ...]
    rates: tuple[float, ...]
    epochs: int
    steps: int  # of the other budget
    hidden: tuple[int, ...]


GRIDS = {
    "quick": Grid((16, 64, 256, 1024), (0,), (0.5, 1.0, 2.0, 5.0), 6, 120, (32,)),
    "short": Grid(
        (16, 64, 256, 1024, 4096, 16384), (0, 1, 2), (0.5, 1.0, 2.0, 5.0), 10, 1000, (128,)
    ),
    "full": Grid((16, 64, 256, 1024, 4096, 16384), (0, 1, 2), RATES, 20, 4000, (256, 128)),
}
BUDGETS = ("epochs", "steps")


class Cell(NamedTuple):
    """A training."""

    budget: str  # of BUDGETS
    optimizer: str
    recipe: str  # of RECIPES
    batch: int
    rate: float  # times the optimizer's own and sqrt(batch / BASE)
    seed: int
    stage: str  # "search", "final" or "timing"
    ranks: int = 1


def load(path: str) -> Data:
    """A data set of any kind that distnn reads, standardised by its training rows."""
    source = open_data(path)
    assert source.test is not None, "the data set needs test rows"
    X, X_test = (
        part.x.read().reshape(len(part.x), -1).astype(np.float32)
        for part in (source.train, source.test)
    )
    T, T_test = source.train.y, source.test.y
    mean, deviation = X.mean(axis=0), X.std(axis=0)
    deviation[deviation == 0] = 1
    X, X_test = (X - mean) / deviation, (X_test - mean) / deviation
    classes = (
        int(T.max()) + 1 if np.array_equal(T, T.astype(int)) and len(set(T.tolist())) < 100 else 0
    )
    if not classes:
        scale = T.mean(), T.std()
        T, T_test = ((t - scale[0]) / scale[1] for t in (T, T_test))
    order = np.random.default_rng(0).permutation(len(X))
    held, rest = order[: len(X) // 10], order[len(X) // 10 :]
    return Data((X[rest], T[rest]), (X, T), (X[held], T[held]), (X_test, T_test), classes)


def train(data: Data, grid: Grid, cell: Cell) -> dict[str, Any]:
    """One training: its measures after each epoch, or that it diverged."""
    X, T = data.part if cell.stage == "search" else data.train
    per_epoch = -(-len(X) // cell.batch)
    epochs = grid.epochs
    if cell.budget == "steps":
        epochs = max(1, round(grid.steps / per_epoch))
    layers = [X.shape[1], *grid.hidden, data.classes or 1]
    kind = {"output": "softmax", "loss": "cross-entropy"}
    if not data.classes:
        kind = {"output": "identity", "loss": "squared-error"}
    rule = OPTIMIZERS[cell.optimizer]
    rate = rule().learning_rate * cell.rate

    def fit(epochs: int) -> tuple[list[dict[str, Any]], float, int]:
        """The records, the seconds, and the number of weights."""
        network = Network(layers, dtype="float32", seed=cell.seed, **kind)
        trainer = Trainer(
            network, rule(rate), batch_size=cell.batch, slices=SLICES, seed=cell.seed,
            scale_learning_rate="sqrt", base_batch=BASE, noise_scale=cell.stage == "final",
            **RECIPES[cell.recipe],
        )  # fmt: skip
        test = {"search": data.held, "final": data.test, "timing": None}[cell.stage]
        start = time.perf_counter()
        records = trainer.fit(X, T, epochs, test=test)
        return records, time.perf_counter() - start, network.size

    if cell.stage == "timing":  # without what a fit takes before and after its steps
        fit(1)
        more = max(1, 40 // per_epoch)
        (_, few, _), (_, many, _) = fit(1), fit(1 + more)
        return {"score": [None], "steps": more * per_epoch, "seconds": many - few}
    try:
        records, seconds, weights = fit(epochs)
    except DivergenceError:
        return {"diverged": True}
    name = "test_accuracy" if data.classes else "test_r2"
    return {
        "score": [record.get(name) for record in records],
        "train_loss": [record["train_loss"] for record in records],
        "noise_scale": [
            value if value is not None and math.isfinite(value) else None
            for value in (record.get("noise_scale") for record in records)
        ],
        "steps": records[-1]["step"],
        "seconds": seconds,
        "items": len(X),
        "weights": weights,
    }


class Results:
    """The lines of a file, by cell; the same on every rank."""

    def __init__(self, path: Path, comm: MPI.Comm) -> None:
        self._path, self._comm = path, comm
        lines = path.read_text().splitlines() if comm.rank == 0 and path.exists() else []
        self._known = {}
        for line in comm.bcast(lines):
            record = json.loads(line)
            self._known[Cell(*record["cell"])] = record

    def of(self, cell: Cell, data: Data, grid: Grid) -> dict[str, Any]:
        """The record of a cell, trained now if it was not before."""
        if cell not in self._known:
            record = {"cell": list(cell), **train(data, grid, cell)}
            if self._comm.rank == 0:
                with self._path.open("a") as file:
                    file.write(json.dumps(record) + "\n")
                print(_shown(cell, record), flush=True)
            self._known[cell] = self._comm.bcast(record)
        return self._known[cell]


def settings(
    grid: Grid, budgets: list[str], names: list[str], recipes: list[str], items: int
) -> Iterator[tuple[str, str, str, int]]:
    """Budget, optimizer, recipe and batch size of all cells."""
    for budget in budgets:
        for name in names:
            for recipe in recipes:
                for batch in grid.batches:
                    if batch <= items:
                        yield budget, name, recipe, batch


def study(
    data: Data, grid: Grid, budgets: list[str], names: list[str], recipes: list[str],
    results: Results,
) -> None:  # fmt: skip
    """The search, and with the best rate of each setting the measured trainings."""
    items = len(data.part[0])
    for budget, name, recipe, batch in settings(grid, budgets, names, recipes, items):

        def score(rate: float, setting: tuple[Any, ...] = (budget, name, recipe, batch)) -> float:
            found = results.of(Cell(*setting, rate, grid.seeds[0], "search"), data, grid)
            return -math.inf if found.get("diverged") else found["score"][-1]

        best = max(grid.rates, key=score)
        for seed in grid.seeds:
            results.of(Cell(budget, name, recipe, batch, best, seed, "final"), data, grid)


def time_steps(data: Data, grid: Grid, names: list[str], results: Results, ranks: int) -> None:
    """Seconds per step on the ranks there are."""
    for name in names:
        for batch in grid.batches:
            if batch <= len(data.train[0]):
                cell = Cell("epochs", name, next(iter(RECIPES)), batch, 1.0, 0, "timing", ranks)
                results.of(cell, data, grid)


def _shown(cell: Cell, record: dict[str, Any]) -> str:
    if record.get("diverged"):
        return f"{' '.join(map(str, cell))}: diverged"
    last = record["score"][-1]
    measure = "" if last is None else f"{last:.4f}, "
    return f"{' '.join(map(str, cell))}: {measure}{record['seconds']:.1f} s"


def main() -> None:
    """Read the flags and train."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", default="digits", help="a path, as of distnn.train")
    parser.add_argument("--name", help="of the results; by default that of the data")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--optimizers", nargs="+", default=list(OPTIMIZERS), choices=OPTIMIZERS)
    parser.add_argument("--budgets", nargs="+", default=list(BUDGETS), choices=BUDGETS)
    parser.add_argument("--recipes", nargs="+", default=["warmup"], choices=RECIPES)
    parser.add_argument("--batches", nargs="+", type=int, help="some of the grid's")
    parser.add_argument("--grid", choices=GRIDS, default="full", help="how much is trained")
    parser.add_argument("--timing", action="store_true", help="seconds per step, on these ranks")
    given = parser.parse_args()
    comm, grid = MPI.COMM_WORLD, GRIDS[given.grid]
    grid = grid._replace(batches=tuple(given.batches or grid.batches))
    if comm.size > 1 and not given.timing:
        parser.error("several ranks are for --timing: they give the same accuracy")
    given.results.mkdir(parents=True, exist_ok=True)
    name = f"{given.name or Path(given.data).stem}-{given.grid}"
    results = Results(given.results / f"{name}.jsonl", comm)
    data = load(given.data)
    if given.timing:
        time_steps(data, grid, given.optimizers, results, comm.size)
    else:
        study(data, grid, given.budgets, given.optimizers, given.recipes, results)


if __name__ == "__main__":
    main()
