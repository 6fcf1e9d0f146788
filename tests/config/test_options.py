"""Keywords of a trainer, and with which options a recorded run goes on."""

import dataclasses
import tomllib

import numpy as np
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


def test_keywords_of_a_trainer():
    config = TrainConfig.from_keywords(batch_size=np.int64(8), checkpoint_every=5, slices=None)
    assert config == TrainConfig(batch_size=8, checkpoint_every="5", progress="off")
    assert type(config.batch_size) is int
    assert config.given == {"batch_size", "checkpoint_every", "slices"}


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"batchsize": 8}, "batchsize: unknown argument; did you mean batch_size?"),
        ({"epochs": 8}, "epochs: no argument of Trainer; give it to fit(X, T, epochs)"),
        ({"hidden": [8]}, "hidden: no argument of Trainer; give it to Network(...)"),
        ({"drop": "id"}, "drop: no argument of Trainer; give it to fit(...) or"),
        ({"momentum": 0.9}, "momentum: no argument of Trainer; give it to the optimizer"),
        ({"trace": "t"}, "trace: no argument of Trainer; only the commands have it"),
        ({"slices": 2**16 + 1}, "slices: 65537 must be at most 65536"),
        ({"seed": 2**63}, "seed: 9223372036854775808 must be at most 9223372036854775807"),
        ({"seed": "1"}, "seed: '1' is not a whole number"),
        ({"seed": None}, "seed: None is not a whole number"),
        ({"keep": True}, "keep: True is not a whole number"),
        ({"checkpoint_every": 0}, "checkpoint_every: '0' cannot be used"),
        ({"reduce": None}, "reduce: there is no None; known: ordered, mpi"),
        ({"run_dir": 3}, "run_dir: 3 is not text"),
    ],
)
def test_bad_keywords(keywords, message):
    with pytest.raises(InputError) as caught:
        TrainConfig.from_keywords(**keywords)
    assert str(caught.value).startswith(message)


def test_auto_stands_for_a_number_that_is_chosen_later(tmp_path) -> None:
    """As a flag, a key and a keyword; a resumed run keeps its own."""
    assert parse_train(["--slices", "auto"]).slices is None
    assert parse_train(["--slices", "5"]).slices == 5
    assert parse_train([]).slices is None
    file = tmp_path / "c.toml"
    file.write_text('slices = "auto"')
    assert parse_train([str(file)]).slices is None
    assert TrainConfig.from_keywords(slices="auto").slices is None
    resumed = merge_resumed(TrainConfig(slices=5), parse_train(["--slices", "auto"]))
    assert resumed.slices == 5
    with pytest.raises(InputError, match="slices"):
        parse_train(["--slices", "automatic"])
