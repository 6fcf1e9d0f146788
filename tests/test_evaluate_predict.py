"""The commands evaluate and predict on one rank: units, formats, names of columns."""

import csv
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distnn.data.split import held_out
from distnn.errors import InputError
from distnn.evaluate import evaluate
from distnn.parallel.comm import communicator as communicator_module
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.predict import predict
from distnn.train import train

# in a process of its own: the limit would hold for what pytest prints, too
SMALL_FILES_ONLY = """
import resource, signal, sys
from distnn.data.split import held_out
from distnn.errors import InputError
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.predict import predict
comm = Communicator(MPI.COMM_SELF)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
try:
    predict(comm, sys.argv[1:])
except InputError as error:
    print(error)
"""
SHORT = ("--hidden", "5", "--slices", "1", "--batch-size", "16", "--progress", "off")


def on_one_rank(command: Callable[[Communicator, list[str]], None], *words: object) -> None:
    command(Communicator(MPI.COMM_SELF), [str(word) for word in words])


def table(path: Path) -> tuple[list[str], np.ndarray]:
    with open(path, newline="") as file:
        lines = list(csv.reader(file))
    return lines[0], np.array(lines[1:], float)


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A csv file with two targets in units of their own, both linear in the features."""
    tmp_path = tmp_path_factory.mktemp("houses")
    draw = np.random.default_rng(0)
    area, age = draw.uniform(30, 200, 120), draw.uniform(0, 80, 120)
    lines = [f"{a:.3f},{b:.3f},{2e5 + 3e3 * a:.3f},{0.5 - 1e-3 * b:.6f}"
             for a, b in zip(area, age, strict=True)]  # fmt: skip
    (tmp_path / "h.csv").write_text("\n".join(["area,age,price,taxe €", *lines]) + "\n")
    on_one_rank(
        train, "--data", tmp_path / "h.csv", "--target", "price,taxe €",
        "--run-dir", tmp_path / "r",
        "--epochs", 200, "--learning-rate", 0.02, "--precision", "float64", *SHORT,
        "--checkpoint-every", 200,
    )  # fmt: skip
    return tmp_path


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp_path = tmp_path_factory.mktemp("classes")
    x = np.random.default_rng(0).normal(size=(90, 3))
    y = np.argmax(x, axis=1)
    np.savez(tmp_path / "c.npz", x_train=x, y_train=y, x_test=x[:50], y_test=y[:50])
    np.save(tmp_path / "x.npy", x[:50])
    on_one_rank(
        train, "--data", tmp_path / "c.npz", "--run-dir", tmp_path / "r", "--epochs", 9, *SHORT
    )
    return tmp_path


def test_real_targets_are_predicted_in_their_own_units(houses: Path) -> None:
    on_one_rank(predict, houses / "r", "--data", houses / "h.csv", "--output", houses / "p.csv")
    names, predicted = table(houses / "p.csv")
    assert names == ["price", "taxe €"]
    _, rows = table(houses / "h.csv")
    assert np.abs(predicted[:, 0] - rows[:, 2]).mean() < 0.05 * rows[:, 2].std()
    assert np.abs(predicted[:, 1] - rows[:, 3]).mean() < 0.05 * rows[:, 3].std()


def test_columns_are_found_by_name(houses: Path) -> None:
    _, rows = table(houses / "h.csv")
    shuffled = np.c_[rows[:, 1], np.zeros(len(rows)), rows[:, 0]]  # age, another one, area
    text = "\n".join(",".join(f"{v:.3f}" for v in row) for row in shuffled)
    (houses / "s.csv").write_text("age,garden,area\n" + text + "\n")
    for name in ("h", "s"):
        on_one_rank(
            predict, houses / "r", "--data", houses / f"{name}.csv",
            "--output", houses / f"p-{name}.npy",
        )  # fmt: skip
    assert np.array_equal(np.load(houses / "p-h.npy"), np.load(houses / "p-s.npy"))
    (houses / "m.csv").write_text("age\n3\n")
    with pytest.raises(InputError, match=r"m\.csv: no such column 'area'"):
        on_one_rank(predict, houses / "r", "--data", houses / "m.csv", "--output", "x.npy")


def test_r2_is_that_of_the_predictions(houses: Path, capsys: pytest.CaptureFixture[str]) -> None:
    on_one_rank(predict, houses / "r", "--data", houses / "h.csv", "--output", houses / "p.npy")
    capsys.readouterr()
    out = houses / "m.json"
    on_one_rank(evaluate, houses / "r", "--data", houses / "h.csv", "--json", out)
    measures = json.loads(out.read_text())
    T = table(houses / "h.csv")[1][:, 2:]
    residual = ((np.load(houses / "p.npy") - T) ** 2).sum(axis=0)
    expected = np.mean(1 - residual / ((T - T.mean(axis=0)) ** 2).sum(axis=0))
    assert measures["items"] == 120
    assert measures["r2"] == pytest.approx(expected, rel=1e-9)


def test_accuracy_is_that_of_the_predictions(
    classes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on_one_rank(predict, classes / "r", "--data", classes / "x.npy", "--output", classes / "p.npy")
    capsys.readouterr()
    out = classes / "m.json"
    on_one_rank(evaluate, classes / "r", "--json", out)
    measures = json.loads(out.read_text())
    summary = json.loads((classes / "r" / "summary.json").read_text())
    with np.load(classes / "c.npz") as arrays:
        assert measures["accuracy"] == np.mean(np.load(classes / "p.npy") == arrays["y_test"])
    assert (measures["accuracy"], measures["loss"]) == (
        summary["test_accuracy"],
        summary["test_loss"],
    )


def test_probabilities_decide_for_the_predicted_class(classes: Path) -> None:
    given = ("--data", classes / "x.npy", "--output")
    on_one_rank(predict, classes / "r", *given, classes / "p.csv")
    on_one_rank(predict, classes / "r", *given, classes / "q.csv", "--probabilities")
    heading, predicted = table(classes / "p.csv")
    names, columns = table(classes / "q.csv")
    A = columns[:, 1:]
    assert heading == ["class"]
    assert names == ["class", "class_0", "class_1", "class_2"]
    assert np.array_equal(A.argmax(axis=1), predicted[:, 0])
    assert np.array_equal(columns[:, 0], predicted[:, 0])
    np.testing.assert_allclose(A.sum(axis=1), 1, rtol=1e-6)


def test_another_checkpoint(classes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, losses = classes / "r" / "checkpoints", []
    oldest = min(folder.glob("step-*"))
    for which in ("latest", "best", oldest):
        capsys.readouterr()
        out = classes / "m.json"
        on_one_rank(evaluate, classes / "r", "--checkpoint", which, "--json", out)
        losses.append(json.loads(out.read_text())["loss"])
    assert losses[1] <= losses[0] < losses[2]
    on_one_rank(evaluate, classes / "r", "--json", out)  # no validation set chose a best one
    assert json.loads(out.read_text())["loss"] == losses[0]
    with pytest.raises(InputError, match="no such checkpoint"):
        on_one_rank(evaluate, classes / "r", "--checkpoint", classes / "nowhere")


def test_the_file_with_the_rows_is_not_overwritten(classes: Path) -> None:
    (classes / "link.npy").symlink_to(classes / "x.npy")
    before = (classes / "x.npy").read_bytes()
    for output in (classes / "x.npy", classes / "r" / ".." / "x.npy", classes / "link.npy"):
        with pytest.raises(InputError, match=r"npy: is the file with the rows; give another"):
            on_one_rank(predict, classes / "r", "--data", classes / "x.npy", "--output", output)
    assert (classes / "x.npy").read_bytes() == before


def test_a_file_that_is_there_is_replaced_only_by_force(classes: Path) -> None:
    output = classes / "new.npy"
    given = (classes / "r", "--data", classes / "x.npy", "--output", output)
    output.write_bytes(b"of somebody else")
    with pytest.raises(InputError, match=r"new\.npy: is there already; .* --force"):
        on_one_rank(predict, *given)
    assert output.read_bytes() == b"of somebody else"
    on_one_rank(predict, *given, "--force")
    assert np.load(output).shape == (50,)


def test_outputs_that_cannot_be_written(classes: Path) -> None:
    given = (classes / "r", "--data", classes / "x.npy", "--output")
    with pytest.raises(InputError, match=r"no/p\.npy: cannot be written: No such file"):
        on_one_rank(predict, *given, classes / "no" / "p.npy")
    with pytest.raises(InputError, match=r"\.csv or \.npy"):
        on_one_rank(predict, *given, classes / "p.txt")


@pytest.mark.parametrize("name", ["p.csv", "p.npy"])
def test_a_disk_that_is_full_leaves_the_predictions_before_and_no_part(
    classes: Path, tmp_path: Path, name: str
) -> None:
    np.save(tmp_path / "x.npy", np.zeros((5000, 3)))
    given = (classes / "r", "--data", tmp_path / "x.npy", "--output", tmp_path / name)
    on_one_rank(predict, *given)
    before = (tmp_path / name).read_bytes()
    command = [sys.executable, "-c", SMALL_FILES_ONLY, *map(str, given), "--force"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert re.search(rf"{name}: cannot be written: File too large; give", result.stdout)
    assert (tmp_path / name).read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"x.npy", name}


@pytest.mark.mpi
def test_too_little_shared_memory(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    comm = Communicator()
    # not pytest's tmp_path: its cleaning up disturbs that of the other ranks
    folder = Path(comm.broadcast(tempfile.mkdtemp() if comm.is_first else None))
    if comm.is_first:
        x = np.random.default_rng(0).normal(size=(600, 3))
        y = np.argmax(x, axis=1)
        np.savez(folder / "c.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    train(comm, ["--data", f"{folder}/c.npz", "--epochs", "2", "--run-dir", f"{folder}/r"])
    printed, messages = [], []
    for room in (1 << 40, 0):
        monkeypatch.setattr(communicator_module, "shared_memory_room", lambda room=room: room)
        capsys.readouterr(), caplog.clear()
        evaluate(comm, [f"{folder}/r"])
        printed.append(capsys.readouterr().out)
        messages.append("".join(caplog.messages))
    assert printed[0] == printed[1]
    assert "shared memory" not in messages[0]
    shares = comm.is_first and comm.nodes < comm.size
    assert messages[1].count("shared memory") == int(shares)
    if comm.is_first:
        shutil.rmtree(folder)


def test_nothing_is_learnt_from_rows_that_are_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same hash as with two files; and the run is measured on its validation set."""
    draw = np.random.default_rng(1)
    kinds = draw.integers(0, 2, 120)
    held = held_out(120, 0.25, 0, kinds)
    lines = []
    for row, kind in enumerate(kinds):
        number = "" if held[row] or row % 7 == 0 else f"{draw.normal() + kind:.4f}"
        colour = "odd" if held[row] and row % 2 else "red"  # none of the rows to train on has it
        lines.append(f"{number},{colour},{1e3 * held[row] + draw.normal():.4f},{'ab'[kind]}")
    for name, keep in (("all", held | True), ("train", ~held), ("held", held)):
        rows = [line for line, wanted in zip(lines, keep, strict=True) if wanted]
        (tmp_path / f"{name}.csv").write_text("\n".join(["x,colour,z,kind", *rows]) + "\n")
    summaries = []
    for data, validation in (("all", 0.25), ("train", tmp_path / "held.csv")):
        on_one_rank(train, "--data", tmp_path / f"{data}.csv", "--validation", validation,
                    "--run-dir", tmp_path / data, "--epochs", 6, *SHORT)  # fmt: skip
        summaries.append(json.loads((tmp_path / data / "summary.json").read_text()))
    assert summaries[0]["weights_sha256"] == summaries[1]["weights_sha256"]
    assert summaries[0]["validation_loss"] == summaries[1]["validation_loss"]
    capsys.readouterr()
    for data in ("all", "train"):
        on_one_rank(evaluate, tmp_path / data)
        found = capsys.readouterr()
        assert json.loads(found.out)["loss"] == summaries[0]["validation_loss"]
        best = summaries[0]["best_epoch"]
        assert found.err.startswith(f"validation set, weights of epoch {best} (best")
        assert re.search(r"^class +as a +as b$", found.err, re.MULTILINE)
