"""With which options a recorded run goes on: as recorded, but for what may change."""

import dataclasses
import tomllib

import pytest

from distnn.config.command_line import parse_train
from distnn.config.options import TrainConfig, merge_resumed
from distnn.config.toml_file import to_toml
from distnn.errors import InputError


def test_resumed_takes_the_recorded_values():
    recorded = TrainConfig(batch_size=32, slices=4, epochs=5, learning_rate=0.1)
    given = parse_train(["--resume", "--run-dir", "r", "--epochs", "9", "--batch-size", "32"])
    merged = merge_resumed(recorded, given)
    expected = dataclasses.replace(recorded, epochs=9, resume=True, run_dir="r")
    assert merged == expected


def test_resumed_ignores_defaults_that_were_not_given():
    assert merge_resumed(TrainConfig(seed=7, hidden=[9]), parse_train([])).seed == 7


@pytest.mark.parametrize(
    "argv",
    [["--batch-size", "16"], ["--seed", "1"], ["--hidden", "8"], ["--data", "x.npz"],
     ["--epochs", "4"], ["--slices", "3"], ["--reduce", "mpi"]],
    ids=" ".join,
)  # fmt: skip
def test_resumed_refuses_what_would_change_the_result(argv):
    name = argv[0].removeprefix("--").replace("-", "_")
    with pytest.raises(InputError, match=f"^{name}: "):
        merge_resumed(TrainConfig(slices=4), parse_train(argv))


@pytest.mark.parametrize(
    "argv",
    [["--update", "sharded"], ["--keep", "5"], ["--checkpoint-every", "7s"], ["--blas", "numpy"]],
    ids=" ".join,
)
def test_resumed_may_change_what_leaves_the_result(argv):
    name = argv[0].removeprefix("--").replace("-", "_")
    assert str(getattr(merge_resumed(TrainConfig(), parse_train(argv)), name)) == argv[1]


def test_auto_means_what_the_run_chose():
    assert merge_resumed(TrainConfig(blas="mkl"), parse_train(["--blas", "auto"])).blas == "mkl"


def test_the_same_relative_path_of_data_resumes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recorded = TrainConfig(**tomllib.loads(to_toml(TrainConfig(data="a.npz"))))
    assert merge_resumed(recorded, parse_train(["--data", "a.npz"])).data == recorded.data
