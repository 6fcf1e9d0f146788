"""Promise 2: the same bits on any number of ranks, for a given number of slices."""

import hashlib
from pathlib import Path
from typing import Any

import datasets
import pytest

from launch import run_metrics, run_summary, train

# Each case on one rank and on two of these, in turns.
# tests/training/test_any_ranks.py has drawn cases on every number up to 4.
MANY = (2, 3, 4, 5, 8)

# 203 rows: batches of 50 (8 does not divide them) end with one of 3, shorter than the 8 slices;
# batches of 64 end with one of 11; batches of 202 with a single item.
CASES = {
    "adam, three layers, dropout": "--hidden 33 17 9 --batch-size 50 --dropout 0.3",
    "adagrad, tanh, one-item batch": "--optimizer adagrad --batch-size 202 --activation tanh",
    "rmsprop, cosine, cut at steps": "--optimizer rmsprop --schedule cosine --warmup 4 "
    "--batch-size 50 --checkpoint-every 3s",
    "float64, sgd, batch below S, clipping": "--precision float64 --optimizer sgd --batch-size 5 "
    "--clip-norm 0.5",
    "lamb, growing batches, weight decay": "--optimizer lamb --weight-decay 0.01 --batch-size 64 "
    "--base-batch 7 --batch-warmup-epochs 1",
}


def result_of(run_dir: Path) -> dict[str, Any]:
    """What must not depend on the number of ranks."""
    summary = run_summary(run_dir)
    names = ("weights_sha256", "optimizer_sha256", "steps", "epochs", "slices",
             "train_loss", "test_loss", "test_accuracy", "test_r2")  # fmt: skip
    return {name: summary.get(name) for name in names} | {"metrics": run_metrics(run_dir)}


def all_results(tmp_path: Path, data: Path, flags: str, turn: int) -> list[dict[str, Any]]:
    results = []
    for ranks in (1, MANY[turn], MANY[(turn + 2) % 5]):
        run_dir = tmp_path / f"run{ranks}"
        train(ranks, "--data", data, "--epochs", 2, "--slices", 8,
              "--run-dir", run_dir, *flags.split())  # fmt: skip
        assert run_summary(run_dir)["ranks"] == ranks
        results.append(result_of(run_dir))
    return results


@pytest.mark.parametrize(("turn", "flags"), list(enumerate(CASES.values())), ids=CASES.keys())
def test_classification_has_the_same_bits_on_any_number_of_ranks(
    tmp_path: Path, turn: int, flags: str
) -> None:
    results = all_results(tmp_path, datasets.classes(tmp_path / "classes.npz"), flags, turn)
    assert results == [results[0]] * 3
    assert int(results[0]["weights_sha256"], 16)
    assert results[0]["weights_sha256"] != hashlib.sha256(b"").hexdigest()


def test_regression_has_the_same_bits_on_any_number_of_ranks(tmp_path: Path) -> None:
    results = all_results(tmp_path, datasets.curve(tmp_path / "curve.npz"), "--batch-size 50", 1)
    assert results == [results[0]] * 3
    assert results[0]["test_r2"] is not None


def test_another_seed_gives_other_bits(tmp_path: Path) -> None:
    data = datasets.classes(tmp_path / "classes.npz")
    for seed in (0, 1):
        train(1, "--data", data, "--epochs", 1, "--seed", seed, "--run-dir", tmp_path / f"{seed}")
    first, second = (result_of(tmp_path / f"{seed}") for seed in (0, 1))
    assert first["weights_sha256"] != second["weights_sha256"]


def test_mpi_reduction_trains_but_promises_no_bits(tmp_path: Path) -> None:
    data = datasets.classes(tmp_path / "classes.npz")
    run = tmp_path / "r"
    result = train(2, "--data", data, "--epochs", 12, "--reduce", "mpi", "--run-dir", run)
    assert run_summary(run)["test_accuracy"] > 0.6
    assert "bits" in result.stdout + result.stderr
