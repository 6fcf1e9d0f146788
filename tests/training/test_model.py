"""A trained run in a program: raw rows in, names and units of the training targets out."""

import csv
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distnn
from distnn import Adam, InputError, Network, Trainer
from distnn.evaluate import evaluate
from distnn.parallel.comm.communicator import Communicator, alone
from distnn.parallel.comm.mpi import MPI
from distnn.predict import predict
from distnn.run import checkpoint
from distnn.train import train

N = 120
SHORT = ("--hidden", "8", "--slices", "4", "--batch-size", "20", "--progress", "off")


class Frame:
    """The least that is a data frame: named columns that give arrays."""

    def __init__(self, columns: dict[str, np.ndarray]) -> None:
        self._columns = columns
        self.columns = list(columns)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __getitem__(self, name: str) -> np.ndarray:
        return self._columns[name]


def columns() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(3)
    size = draw.normal(50, 9, N).round(3)
    colour = draw.choice(np.array(["red", "green", "blue"], object), N)
    price = np.exp(size / 30 + (colour == "red")).round(4)
    kind = np.where((size > 50) ^ (colour == "red"), "big", "small").astype(object)
    size[::11] = np.nan
    return {"size": size, "colour": colour, "kind": kind, "price": price}


def write(path: Path, table: dict[str, np.ndarray]) -> Path:
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", *table])
        rows = zip(*(values.tolist() for values in table.values()), strict=True)
        out.writerows([f"r{i:03}", *row] for i, row in enumerate(rows))
    return path


def call(command: Any, *words: object, comm: Communicator | None = None) -> None:
    command(comm or alone(), [str(word) for word in words])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    path = write(folder / "t.csv", columns())
    common = ("--data", path, "--epochs", 30, "--learning-rate", 0.02, *SHORT)
    call(train, *common, "--target", "kind", "--drop", "id,price", "--run-dir", folder / "kinds")
    call(train, *common, "--target", "price", "--drop", "id,kind", "--target-transform", "log",
         "--run-dir", folder / "prices", "--test-data", path)  # fmt: skip
    return folder


def features(*names: str) -> Frame:
    return Frame({name: values for name, values in columns().items() if name in names})


def test_classes_by_name(runs: Path) -> None:
    model = distnn.load(str(runs / "kinds"))
    X = features("size", "colour", "price")
    assert model.classes == ["big", "small"]
    assert model.network.layers[0] == 5
    assert model.preparation is not None
    P = model.predict_proba(X)
    assert P.shape == (N, 2)
    assert np.array_equal(np.array(["big", "small"])[P.argmax(axis=1)], model.predict(X))
    kinds = columns()["kind"]
    measures = model.evaluate(X, kinds)
    assert measures["accuracy"] == np.mean(model.predict(X) == kinds) > 0.85
    rows = np.column_stack([columns()["size"].astype(object), columns()["colour"]])
    assert np.array_equal(model.predict(rows), model.predict(X))  # by position
    with pytest.raises(InputError, match="no such column 'size'"):
        model.predict(features("colour"))
    with pytest.raises(
        InputError, match=r"T, row 0 .*: class 'tiny' is none of the training set's"
    ):
        model.evaluate(X, ["tiny"] * N)
    with pytest.raises(InputError, match="120 rows and 2 targets"):
        model.evaluate(X, ["big", "small"])


def test_real_targets_in_their_own_unit(runs: Path) -> None:
    model = distnn.load(str(runs / "prices"), "latest")
    X, price = features("size", "colour"), columns()["price"]
    predicted = model.predict(X)
    r2 = 1 - ((predicted - price) ** 2).sum() / ((price - price.mean()) ** 2).sum()
    assert r2 > 0.5
    assert model.classes is None
    assert model.evaluate(X, price)["r2"] == pytest.approx(r2, rel=1e-6)
    summary = json.loads((runs / "prices" / "summary.json").read_text())
    assert summary["test_r2"] == pytest.approx(r2, rel=1e-6)
    with pytest.raises(InputError, match="regression; use predict"):
        model.predict_proba(X)
    with pytest.raises(InputError, match=r"T, row 0 .*: -1 has no logarithm"):
        model.evaluate(X, -np.ones(N))


def test_the_commands_give_the_same(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = distnn.load(str(runs / "kinds"), "latest")
    X = features("size", "colour")
    given = (runs / "kinds", "--data", runs / "t.csv")
    call(predict, *given, "--output", tmp_path / "p.csv", "--id", "id")
    assert capsys.readouterr().out.startswith(f"{N} rows written to {tmp_path}/p.csv, weights of")
    with (tmp_path / "p.csv").open(newline="") as file:
        heading, *rows = csv.reader(file)
    assert heading == ["id", "class"]
    assert [row[0] for row in rows] == [f"r{i:03}" for i in range(N)]
    assert [row[1] for row in rows] == model.predict(X).tolist()
    call(predict, *given, "--output", tmp_path / "q.csv", "--probabilities")
    with (tmp_path / "q.csv").open(newline="") as file:
        heading, *rows = csv.reader(file)
    assert heading == ["class", "big", "small"]
    assert [row[0] for row in rows] == model.predict(X).tolist()
    found = np.array([row[1:] for row in rows], float)
    np.testing.assert_allclose(found, model.predict_proba(X), rtol=1e-7)
    call(predict, *given, "--output", tmp_path / "p.npy")
    assert np.load(tmp_path / "p.npy").tolist() == model.predict(X).tolist()
    call(evaluate, *given, "--json", tmp_path / "e.json")
    measures = json.loads((tmp_path / "e.json").read_text())
    assert measures == model.evaluate(X, columns()["kind"])
    with pytest.raises(InputError, match=r"t\.csv: no such column 'idd'; did you mean 'id'"):
        call(predict, *given, "--output", tmp_path / "r.csv", "--id", "idd")
    with pytest.raises(InputError, match=r"--id: an .npy file has no place"):
        call(predict, *given, "--output", tmp_path / "r.npy", "--id", "id")


def test_a_resumed_run_goes_on_with_its_preparation(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "kinds", tmp_path / "r")
    call(train, "--run-dir", tmp_path / "r", "--resume", "--epochs", 31, "--progress", "off")
    call(train, "--data", runs / "t.csv", "--epochs", 31, "--learning-rate", 0.02, *SHORT,
         "--target", "kind", "--drop", "id,price", "--run-dir", tmp_path / "s")  # fmt: skip
    hashes = [json.loads((tmp_path / name / "summary.json").read_text())["weights_sha256"]
              for name in "rs"]  # fmt: skip
    assert hashes[0] == hashes[1]


FORGED: tuple[Any, ...] = (None, True, -1, 2**70, 1e300, "x", "\x1b[31m", [], [[]], {}, ["a"] * 3)


def test_a_forged_preparation_is_refused_or_harmless(
    runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(runs / "kinds", tmp_path / "r")
    path = checkpoint.saved(tmp_path / "r" / "checkpoints")[0]
    found = checkpoint.read(path)
    columns = found.meta["preparation"]["columns"]
    places = [(k, key) for k, column in enumerate(columns) for key in column]
    for value in FORGED:
        forged = [found.meta | {key: value} for key in (
            "preparation", "class_names", "target_transform", "target_names", "task", "classes",
        )]  # fmt: skip
        for key in ("named", "columns", "more"):
            forged.append(found.meta | {"preparation": found.meta["preparation"] | {key: value}})
        for k, key in places:
            changed = [*columns[:k], columns[k] | {key: value}, *columns[k + 1 :]]
            changed_preparation = found.meta["preparation"] | {"columns": changed}
            forged.append(found.meta | {"preparation": changed_preparation})
        for meta in forged:
            checkpoint.write(path.parent, path.stem, found.tensors, meta)
            for command, more in ((evaluate, ()), (predict, ("--output", tmp_path / "p.csv"))):
                try:
                    call(command, tmp_path / "r", "--data", runs / "t.csv", *more,
                         *(["--force"] if more else []))  # fmt: skip
                except InputError as error:
                    assert str(error).isprintable()
    assert all(message.isprintable() for message in caplog.messages)


def frames() -> list[Any]:
    """The same table in whatever frames are installed."""
    table = {name: columns()[name] for name in ("size", "colour")}
    found: list[Any] = [Frame(table)]
    for name, make in (("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "table")):
        try:
            module = __import__(name)
        except ImportError:
            print(f"{name} is not installed: not tested")
            continue
        found.append(getattr(module, make)(table))
    return found


def test_a_trainer_takes_data_frames_and_text(tmp_path: Path) -> None:
    labels, predicted, losses = columns()["kind"], [], []
    for k, frame in enumerate(frames()):
        width = distnn.prepare(frame).width
        trainer = Trainer(Network([width, 8, 2]), Adam(0.02), slices=4, run_dir=f"{tmp_path}/{k}")
        history = trainer.fit(frame, labels, epochs=10, test=(frame, labels))
        model = distnn.load(f"{tmp_path}/{k}", "latest")
        assert model.classes == ["big", "small"]
        assert model.evaluate(frame, labels)["loss"] == history[-1]["test_loss"]
        predicted.append(model.predict(frame).tolist())
        losses.append(history[-1]["train_loss"])
        if k == 0:
            with pytest.raises(
                InputError, match=r"X: gives 5 features, the network takes 4; build"
            ):
                Trainer(Network([4, 2]), slices=4).fit(frame, labels, 1)
            with pytest.raises(InputError, match="targets: holds 2 classes, the network has 3"):
                Trainer(Network([5, 3]), slices=4).fit(frame, labels, 1)
    assert all(one == predicted[0] for one in predicted)
    assert len(set(losses)) == 1


def test_rows_unlike_those_of_a_program_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    X = np.random.default_rng(0).normal(size=(N, 3))
    run = f"{tmp_path}/r"
    Trainer(Network([3, 4, 2]), slices=1, run_dir=run).fit(X, (X[:, 0] > 0).astype(int), 1)
    model = distnn.load(run)
    model.predict(X[:50])
    assert "no scaling is recorded" in caplog.messages[-1]
    caplog.clear()
    model.predict(X * [1, 1, 100] + [0, 50, 0])
    assert "rows look unlike those of the training: column 1 has mean 49.97" in caplog.messages[-1]
    assert caplog.messages[-1].endswith("(2 of 3 columns)")


@pytest.mark.mpi
def test_ranks_share_the_work_or_work_alone() -> None:
    comm = Communicator()
    # not pytest's tmp_path: its cleaning up disturbs that of the other ranks
    folder = Path(comm.broadcast(tempfile.mkdtemp() if comm.is_first else None))
    if comm.is_first:
        write(folder / "t.csv", columns())
    call(train, "--data", folder / "t.csv", "--target", "kind", "--drop", "id,price",
         "--epochs", 2, "--run-dir", folder / "r", *SHORT, comm=comm)  # fmt: skip
    X = features("size", "colour")
    alone, shared = (
        distnn.load(str(folder / "r")),
        distnn.load(str(folder / "r"), "best", MPI.COMM_WORLD),
    )
    assert np.array_equal(alone.predict_proba(X), shared.predict_proba(X))
    assert alone.evaluate(X, columns()["kind"]) == shared.evaluate(X, columns()["kind"])
    with pytest.raises(InputError, match="no such column"):
        shared.predict(features("size"))
    with pytest.raises(InputError):
        distnn.load(str(folder / "none"), "best", MPI.COMM_WORLD)
    trainer = Trainer(Network([5, 8, 2], seed=1), Adam(0.02), slices=4)
    history = trainer.fit(X, columns()["kind"], epochs=3)
    one = Trainer(Network([5, 8, 2], seed=1), Adam(0.02), slices=4, comm=MPI.COMM_SELF)
    assert one.fit(X, columns()["kind"], epochs=3) == history
    comm.largest(0)
    if comm.is_first:
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["wine", "breast_cancer"])
def test_scikit_learns_data_as_a_table_with_named_classes(tmp_path: Path, name: str) -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason="pip install 'distnn[peers]'")
    bunch = getattr(datasets, f"load_{name}")()
    labels = bunch.target_names[bunch.target]
    draw = np.random.default_rng(0).permutation(len(labels))
    cut = len(labels) * 3 // 4
    for part, rows in (("train", draw[:cut]), ("test", draw[cut:])):
        with (tmp_path / f"{part}.csv").open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow([*bunch.feature_names, "kind"])
            out.writerows([*bunch.data[row].tolist(), labels[row]] for row in rows)
    call(train, "--data", tmp_path / "train.csv", "--test-data", tmp_path / "test.csv",
         "--run-dir", tmp_path / "r", "--epochs", 8, "--learning-rate", 0.01, *SHORT)  # fmt: skip
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    X = (bunch.data - bunch.data[draw[:cut]].mean(axis=0)) / bunch.data[draw[:cut]].std(axis=0)
    y = np.searchsorted(sorted(set(labels)), labels)
    trainer = Trainer(Network([X.shape[1], 8, y.max() + 1]), Adam(0.01), batch_size=20, slices=4)
    sets = [(X[rows], y[rows]) for rows in (draw[:cut], draw[cut:])]
    expected = trainer.fit(*sets[0], 8, test=sets[1])[-1]
    assert summary["test_accuracy"] == expected["test_accuracy"]
    assert summary["test_loss"] == pytest.approx(expected["test_loss"], rel=1e-3)
    model = distnn.load(str(tmp_path / "r"), "latest")
    test = draw[cut:]
    assert model.classes == sorted(set(labels.tolist()))
    accuracy = np.mean(model.predict(bunch.data[test]) == labels[test])
    assert accuracy == summary["test_accuracy"]
    print(f"{name}: accuracy {accuracy:.4f} on {len(test)} rows")
