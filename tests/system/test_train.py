"""The commands from outside: what they print, what they write, what they end with."""

import csv
import hashlib
import json
import re
import tomllib
from pathlib import Path

import datasets
import numpy as np
import pytest
from safetensors.numpy import load_file

from launch import ROOT, mpirun, run_metrics, run_summary, train

SUMMARY = {
    "weights_sha256", "optimizer_sha256", "steps", "epochs", "ranks", "nodes", "slices",
    "train_loss", "test_loss", "test_accuracy", "seconds", "samples_per_second",
}  # fmt: skip


def test_digits_with_the_defaults(tmp_path: Path) -> None:
    result = train(2, "--run-dir", tmp_path / "r")
    summary = run_summary(tmp_path / "r")
    assert set(summary) >= SUMMARY
    assert summary["test_accuracy"] >= 0.955
    assert (summary["ranks"], summary["slices"], summary["epochs"]) == (2, 8, 20)
    assert len(run_metrics(tmp_path / "r")) == 20
    assert result.stdout.count(summary["weights_sha256"][:12]) <= 1, "printed by several ranks"


def test_the_hash_can_be_recomputed_from_the_checkpoint(tmp_path: Path) -> None:
    data = datasets.classes(tmp_path / "classes.npz")
    train(2, "--data", data, "--epochs", 2, "--hidden", 7, 6, "--run-dir", tmp_path / "r")
    newest = max((tmp_path / "r" / "checkpoints").glob("step-*.safetensors"))
    arrays = load_file(newest)
    weights = [arrays[name] for name in ("W1", "W2", "W3")]
    assert [w.shape for w in weights] == [(6, 7), (8, 6), (7, 3)]
    digest = hashlib.sha256(b"".join(w.astype("<f4").tobytes() for w in weights))
    assert digest.hexdigest() == run_summary(tmp_path / "r")["weights_sha256"]


def test_config_toml_of_a_run_repeats_it(tmp_path: Path) -> None:
    data = datasets.classes(tmp_path / "classes.npz")
    train(2, "--data", data, "--epochs", 2, "--optimizer", "sgd", "--run-dir", tmp_path / "a")
    train(1, tmp_path / "a" / "config.toml", "--run-dir", tmp_path / "b")
    first, second = run_summary(tmp_path / "a"), run_summary(tmp_path / "b")
    assert first["weights_sha256"] == second["weights_sha256"]


def test_without_mpirun(tmp_path: Path) -> None:
    data = datasets.classes(tmp_path / "classes.npz")
    for ranks in (0, 1):
        train(ranks, "--data", data, "--epochs", 1, "--run-dir", tmp_path / f"{ranks}")
    summaries = [run_summary(tmp_path / f"{ranks}") for ranks in (0, 1)]
    assert summaries[0]["weights_sha256"] == summaries[1]["weights_sha256"]


@pytest.mark.parametrize("module", ["distnn.train", "distnn.evaluate", "distnn.predict"])
def test_help_is_printed_once(module: str) -> None:
    result = mpirun(4, "--help", module=module)
    assert result.code == 0, result.stderr
    assert result.stdout.lower().count("usage") == 1
    assert "--data" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("name", ["train", "evaluate", "predict", "bench", "doctor"])
def test_the_version_is_that_of_the_project(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    result = mpirun(0, "--version", module=f"distnn.{name}")
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout == f"distnn {project['version']}\n"


def test_a_diverging_run_ends_with_3_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    data = datasets.curve(tmp_path / "curve.npz")
    result = mpirun(
        2, "--data", data, "--optimizer", "sgd", "--learning-rate", "1e6", "--activation",
        "identity", "--run-dir", tmp_path / "r",
    )  # fmt: skip
    assert result.code == 3, result.stderr
    understood, *told = result.stderr.splitlines()
    assert "regression, 2 targets" in understood
    assert len(told) == 1, result.stderr
    for checkpoint in (tmp_path / "r" / "checkpoints").glob("*.safetensors"):
        assert all(np.isfinite(array).all() for array in load_file(checkpoint).values())


def test_evaluate_gives_the_accuracy_of_the_summary_on_any_number_of_ranks(tmp_path: Path) -> None:
    data = datasets.classes(tmp_path / "classes.npz")
    train(2, "--data", data, "--epochs", 3, "--run-dir", tmp_path / "r")
    outputs = []
    for ranks in (1, 3):
        result = mpirun(ranks, tmp_path / "r", module="distnn.evaluate")
        assert result.code == 0, result.stderr
        outputs.append(re.sub(r"\S*\s*seconds?.*|.*\branks?\b.*", "", result.stdout))
    assert outputs[0] == outputs[1]
    accuracy = run_summary(tmp_path / "r")["test_accuracy"]
    assert f"{accuracy:.4f}" in outputs[0] or f"{100 * accuracy:.2f}" in outputs[0]


def test_predict_writes_one_row_per_input_row(tmp_path: Path) -> None:
    data = datasets.classes(tmp_path / "classes.npz")
    train(2, "--data", data, "--epochs", 8, "--run-dir", tmp_path / "r")
    with np.load(data) as arrays:
        np.save(tmp_path / "rows.npy", arrays["x_test"])
        expected = arrays["y_test"]
    for ranks, name in ((1, "p.npy"), (3, "q.npy"), (2, "p.csv")):
        result = mpirun(
            ranks, tmp_path / "r", "--data", tmp_path / "rows.npy", "--output", tmp_path / name,
            module="distnn.predict",
        )  # fmt: skip
        assert result.code == 0, result.stderr
    predicted = np.load(tmp_path / "p.npy")
    assert predicted.shape == expected.shape
    accuracy = np.mean(predicted == expected)
    assert accuracy == pytest.approx(run_summary(tmp_path / "r")["test_accuracy"])
    assert np.array_equal(predicted, np.load(tmp_path / "q.npy"))
    with open(tmp_path / "p.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert [int(row[-1]) for row in rows[-len(expected) :]] == predicted.tolist()


def test_the_python_interface_gives_the_bits_it_gives_on_more_ranks(tmp_path: Path) -> None:
    script = tmp_path / "fit.py"
    script.write_text(
        "import json, sys\n"
        "import numpy as np\n"
        "from mpi4py import MPI\n"
        "from distnn import Network, SGD, Trainer\n"
        "x = np.random.default_rng(0).normal(size=(101, 4)).astype(np.float32)\n"
        "y = (x[:, 0] > x[:, 1]).astype(int)\n"
        "net = Network([4, 9, 2], activation='tanh', seed=1)\n"
        "trainer = Trainer(net, optimizer=SGD(0.1), batch_size=16, slices=4, seed=2)\n"
        "trainer.fit(x, y, epochs=2)\n"
        "trainer.fit(x, y, epochs=1)\n"
        "if MPI.COMM_WORLD.rank == 0:\n"
        "    print(json.dumps([w.tolist() for w in net.weights]))\n"
    )
    env = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    results = [mpirun(ranks, module="fit", env=env) for ranks in (1, 2, 4)]
    assert [result.code for result in results] == [0, 0, 0], results
    weights = [json.loads(result.stdout) for result in results]
    assert weights[0] == weights[1] == weights[2]
