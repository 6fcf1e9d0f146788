"""A resumed run: what is compared with its checkpoint, and checkpoints that somebody forged."""

import copy
import functools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distnn import Adam, Network, Trainer
from distnn.errors import DistnnError, InputError
from distnn.evaluate import evaluate
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.predict import predict
from distnn.run import checkpoint
from distnn.train import train

Command = Callable[[Communicator, list[str]], None]
SHORT = ("--batch-size", 16, "--slices", 4, "--hidden", 5, "--progress", "off")


@functools.cache
def one_rank() -> Communicator:
    """One for all commands: an MPI has some 2,000."""
    return Communicator(MPI.COMM_SELF)


def call(command: Command, *words: object) -> None:
    command(one_rank(), [str(word) for word in words])


def data(path: Path, **changes: Any) -> Path:
    x = np.random.default_rng(0).normal(size=(3000, 3))
    y = (x[:, 0] > 0).astype(int)
    arrays = {"x_train": x, "y_train": y, "x_test": x[:40], "y_test": y[:40]} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def start(folder: Path, *more: object, epochs: int = 2) -> Path:
    """A run of two epochs; its directory."""
    folder.mkdir(exist_ok=True)
    words = ("--data", data(folder / "set.npz"), "--run-dir", folder / "r")
    call(train, *words, "--epochs", epochs, *SHORT, *more)
    return folder / "r"


def resume(run: Path, *more: object, epochs: int = 3) -> None:
    call(train, "--run-dir", run, "--resume", "--epochs", epochs, "--progress", "off", *more)


def summary(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return found


def newest(run: Path) -> Path:
    return checkpoint.saved(run / "checkpoints")[0]


def edit(run: Path, pattern: str, replacement: str) -> None:
    text = (run / "config.toml").read_text()
    changed = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    assert changed != text
    (run / "config.toml").write_text(changed)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("learning_rate", "learning_rate = 0.5"),
        ("learning_rate", ""),
        ("batch_size", "batch_size = 17"),
        ("seed", "seed = 9"),
        ("activation", 'activation = "tanh"'),
        ("slices", "slices = 5"),
        ("optimizer", 'optimizer = "sgd"'),
        ("hidden", "hidden = [6]"),
        ("precision", 'precision = "float64"'),
        ("reduce", 'reduce = "mpi"'),
        ("epochs", "epochs = 1"),
    ],
)
def test_a_config_that_was_edited_is_refused(tmp_path: Path, name: str, line: str) -> None:
    run = start(tmp_path)
    edit(run, rf"^{name} = .*$", line)
    before = newest(run).read_bytes()
    with pytest.raises(InputError, match=rf"config\.toml was changed: {name}: ") as refused:
        call(train, "--run-dir", run, "--resume")
    assert refused.value.exit_code == 2
    assert newest(run).read_bytes() == before


@pytest.mark.parametrize(
    ("name", "line"),
    [("epochs", "epochs = 3"), ("keep", "keep = 9"), ("stall_timeout", "stall_timeout = 30.0"),
     ("checkpoint_every", 'checkpoint_every = "2"'), ("update", 'update = "sharded"')],
)  # fmt: skip
def test_what_may_change_may_be_edited(tmp_path: Path, name: str, line: str) -> None:
    run, straight = start(tmp_path), start(tmp_path / "straight", epochs=3)
    edit(run, rf"^{name} = .*$", line)
    resume(run)
    assert summary(run)["weights_sha256"] == summary(straight)["weights_sha256"]


def test_data_that_were_moved_are_found_by_an_edited_config(tmp_path: Path) -> None:
    run = start(tmp_path)
    (tmp_path / "set.npz").rename(tmp_path / "moved.npz")
    edit(run, r"set\.npz", "moved.npz")
    resume(run)
    assert summary(run)["epochs"] == 3


@pytest.mark.parametrize(
    ("flags", "what"), [((), "another run"), (("--seed", 3), "another run"), (("--hidden", 7), "")]
)
def test_the_checkpoint_of_another_run_is_refused(
    tmp_path: Path, flags: tuple[object, ...], what: str
) -> None:
    other, run = tmp_path / "o", start(tmp_path)
    other.mkdir()
    more = [word for word in SHORT if word not in ("--hidden", 5)] if "--hidden" in flags else SHORT
    call(train, "--data", tmp_path / "set.npz", "--run-dir", other, "--epochs", 3, *more, *flags)
    shutil.copy(newest(other), run / "checkpoints")
    with pytest.raises(InputError, match=rf"step-0000000564\.safetensors: is of {what}"):
        resume(run)
    with pytest.raises(InputError, match=r"step-0000000564\.safetensors: is of another run"):
        call(evaluate, run)
    (run / "run.id").unlink()  # as of a run that was started before there were any
    if flags:
        with pytest.raises(InputError, match=f"is not of this run.*: {str(flags[0])[2:]}: "):
            resume(run)


def test_the_best_checkpoint_of_another_run_does_not_count(tmp_path: Path) -> None:
    run, other = start(tmp_path), start(tmp_path / "o", "--learning-rate", 0.1, epochs=6)
    best = run / "checkpoints" / "best.safetensors"
    best.unlink()  # it may be the same file as the newest one
    shutil.copy(other / "checkpoints" / "best.safetensors", best)
    with pytest.raises(InputError, match=r"best\.safetensors: is of another run"):
        call(evaluate, run, "--checkpoint", "best")
    resume(run)
    assert checkpoint.read(best).meta["run"] == (run / "run.id").read_text().strip()


def test_lines_of_metrics_that_hold_text_are_refused(tmp_path: Path) -> None:
    run = start(tmp_path)
    path = run / "metrics.jsonl"
    path.write_text(re.sub(r'"train_loss": [0-9.]+', '"train_loss": "x"', path.read_text()))
    for epochs in (2, 3):
        with pytest.raises(InputError, match=r"metrics\.jsonl: line 1 is not one that"):
            resume(run, epochs=epochs)


def test_a_resumed_job_says_which_steps_are_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start(tmp_path)
    capsys.readouterr()
    resume(run)
    assert "3 epochs, 564 steps, 188 of them in this job, on 1 rank" in capsys.readouterr().out


def test_a_run_that_is_copied_as_a_whole_goes_on(tmp_path: Path) -> None:
    run = start(tmp_path)
    shutil.copytree(run, tmp_path / "copy")
    resume(run)
    resume(tmp_path / "copy")
    assert summary(tmp_path / "copy")["weights_sha256"] == summary(run)["weights_sha256"]
    assert (tmp_path / "copy" / "run.id").read_text() == (run / "run.id").read_text()


def exchanged(n: int, i: int, k: int) -> np.ndarray:
    order = np.arange(n)
    order[[i, k]] = k, i
    return order


X = np.random.default_rng(0).normal(size=(3000, 3))
Y = (X[:, 0] > 0).astype(int)
ORDER = exchanged(3000, int(np.flatnonzero(Y == 0)[1]), int(np.flatnonzero(Y == 0)[-2]))
FLIPPED = np.where(np.arange(40) == 7, 1 - Y[:40], Y[:40])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"x_train": X[ORDER]}, "training rows"),
        ({"y_train": np.where(np.arange(3000) == 1001, 1 - Y, Y)}, "training targets"),
        ({"x_test": X[:40] + 1e-3}, "test rows"),
        ({"y_test": FLIPPED}, "test targets"),
        ({"x_test": None, "y_test": None}, "test rows, test targets"),
    ],
)
def test_changed_data_are_named_and_gone_on_with_by_a_flag(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    run = start(tmp_path)
    data(tmp_path / "set.npz", **changes)
    what = rf"set\.npz: holds other data than .*: {named}; .*--allow-changed-data"
    with pytest.raises(InputError, match=what):
        resume(run)
    resume(run, "--allow-changed-data")
    assert summary(run)["epochs"] == 3


def test_changed_data_are_scaled_as_those_before(tmp_path: Path) -> None:
    run = start(tmp_path)
    before = checkpoint.read(newest(run)).tensors
    data(tmp_path / "set.npz", x_train=3 * X + 1)
    resume(run, "--allow-changed-data")
    after = checkpoint.read(newest(run))
    assert np.array_equal(after.tensors["scaling.shift"], before["scaling.shift"])
    resume(run, epochs=4)  # they are this run's data from now on
    assert summary(run)["epochs"] == 4


def test_data_of_another_width_never_go_on(tmp_path: Path) -> None:
    run = start(tmp_path)
    data(tmp_path / "set.npz", x_train=X[:, :2], x_test=X[:40, :2])
    with pytest.raises(InputError, match=r"network: layers \[2, 5, 2\] here, \[3, 5, 2\] in step"):
        resume(run, "--allow-changed-data")


def test_a_test_set_that_has_changed_is_not_measured_as_the_runs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start(tmp_path)
    decoy = tmp_path / "elsewhere"
    decoy.mkdir()
    monkeypatch.chdir(decoy)
    data(decoy / "set.npz", y_test=FLIPPED)
    capsys.readouterr()
    call(evaluate, run, "--json", "measures.json")
    assert json.loads(Path("measures.json").read_text())["loss"] == summary(run)["test_loss"]
    data(tmp_path / "set.npz", y_test=FLIPPED)
    with pytest.raises(InputError, match=r"another test set.*with --data to measure it anyway"):
        call(evaluate, run)
    call(evaluate, run, "--data", tmp_path / "set.npz")


def test_a_validation_set_that_has_changed_is_not_measured_as_the_runs_own(tmp_path: Path) -> None:
    tmp_path.mkdir(exist_ok=True)
    x = np.random.default_rng(1).normal(size=(50, 3))
    held = tmp_path / "held.npz"
    np.savez(held, x=x, y=np.arange(50) % 2)
    words = ("--data", data(tmp_path / "set.npz", x_test=None, y_test=None), "--validation", held)
    run = tmp_path / "r"
    call(train, *words, "--run-dir", run, "--epochs", 1, *SHORT)
    call(evaluate, run)
    np.savez(held, x=x, y=(np.arange(50) + 1) % 2)
    with pytest.raises(InputError, match=r"held\.npz.* holds another validation set than when"):
        call(evaluate, run)


def test_a_run_from_a_relative_path_is_evaluated_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data(tmp_path / "set.npz")
    call(train, "--data", "set.npz", "--run-dir", "r", "--epochs", 1, *SHORT)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    for config in (True, False):  # as distnn finds the path, and as it stands in the checkpoint
        if not config:
            (tmp_path / "r" / "config.toml").unlink()
        capsys.readouterr()
        call(evaluate, "../r", "--json", "measures.json")
        assert json.loads(Path("measures.json").read_text())["items"] == 40


def test_lost_lines_of_the_metrics_are_written_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, straight = start(tmp_path, epochs=4), start(tmp_path / "straight", epochs=5)
    whole = (run / "metrics.jsonl").read_bytes()
    for damage in (b"", whole[:-30], whole.splitlines(keepends=True)[3], None):
        if damage is None:
            (run / "metrics.jsonl").unlink()
        else:
            (run / "metrics.jsonl").write_bytes(damage)
        resume(run, epochs=4)
        assert (run / "metrics.jsonl").read_bytes() == whole
    resume(run, epochs=5)
    assert (run / "metrics.jsonl").read_bytes() == (straight / "metrics.jsonl").read_bytes()
    assert "have no line" not in caplog.text


def test_lines_that_nobody_has_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("distnn.training.run_writer.LINES_KEPT", 1)
    run = start(tmp_path, epochs=3)
    (run / "metrics.jsonl").unlink()
    resume(run, epochs=4)
    assert "metrics.jsonl: 2 of 3 epochs have no line, nor has the checkpoint one" in caplog.text
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [3, 4]


def test_a_finished_run_keeps_its_summary(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start(tmp_path)
    before = (run / "summary.json").read_bytes()
    capsys.readouterr()
    resume(run, epochs=2)
    assert (run / "summary.json").read_bytes() == before
    assert f"{run}: the run is finished, nothing was left to do" in caplog.text
    assert " 0 samples/s" not in capsys.readouterr().out
    (run / "summary.json").unlink()  # as of a job that was killed just before
    resume(run, epochs=2)
    assert summary(run)["weights_sha256"] == json.loads(before)["weights_sha256"]
    assert summary(run)["samples_per_second"] > 0


def test_the_summary_lists_what_all_jobs_ran_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(tmp_path)
    here = summary(run)["fingerprints"][0]
    for epochs, kernel in ((3, "Other"), (4, here["blas_kernel"]), (5, "Third")):
        one = here | {"blas_kernel": kernel}
        monkeypatch.setattr("distnn.training.run_files.fingerprint", lambda _, one=one: one)
        resume(run, epochs=epochs)
    kernels = [one["blas_kernel"] for one in summary(run)["fingerprints"]]
    assert kernels == [here["blas_kernel"], "Other", "Third"]


def test_predictions_of_a_programs_run_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = str(tmp_path / "r")
    Trainer(Network([3, 4, 2], seed=1), Adam(0.01), run_dir=run, slices=1).fit(X, Y, epochs=1)
    np.save(tmp_path / "x.npy", X[:9] * 100)
    call(predict, run, "--data", tmp_path / "x.npy", "--output", tmp_path / "p.npy")
    assert "the rows must be prepared as that program does" in caplog.text


# --- forged checkpoints --------------------------------------------------------------------------

VALUES: tuple[Any, ...] = (None, True, -1, 2**70, 1e300, "x", "\x1b[31mred", [], [[]], {}, {"a": 1})


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start(tmp_path_factory.mktemp("sound"), epochs=1)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else []
    return [path, *(place for key, one in inner for place in places(one, (*path, key)))]


def refusal(run: Path, command: Command, *words: object) -> str:
    """What a command says of a run; anything but an error of distnn's own is a failure."""
    try:
        call(command, *words)
    except DistnnError as error:
        text = str(error)
        assert error.exit_code in (2, 3)
        assert text.isprintable()
        assert len(text) < 1000
        return text
    return ""


def test_forged_metadata_are_refused_or_harmless(
    sound: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = checkpoint.read(newest(sound))
    run = tmp_path / "r"
    shutil.copytree(sound, run)
    name = newest(run).name.removesuffix(checkpoint.SUFFIX)
    for number, place in enumerate(places(found.meta)[1:]):
        if place[0] == "position" and len(place) == 2:
            assert place[1] in ("epoch", "step", "steps", "loss", "signal", "noise")
        # each value at every other place: all of them at all places take a minute
        for value in (*VALUES[number % 2 :: 2], "missing"):
            meta = copy.deepcopy(found.meta)
            inner = meta
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = value
            if value == "missing":
                del inner[place[-1]]
            checkpoint.write(run / "checkpoints", name, found.tensors, meta)
            said = refusal(run, evaluate, run) + refusal(
                run, train, "--run-dir", run, "--resume", "--progress", "off"
            )
            if place[0] == "position":
                assert said, (place, value)
            for path in (run / "checkpoints").glob("step*"):
                if path.name.removesuffix(checkpoint.SUFFIX) != name:
                    path.unlink()
    assert all(message.isprintable() for message in caplog.messages)
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("place", [{"epoch": 30}, {"step": 188}])
def test_a_position_beyond_the_run_is_refused(
    sound: Path, tmp_path: Path, place: dict[str, int]
) -> None:
    run = tmp_path / "r"
    shutil.copytree(sound, run)
    found = checkpoint.read(newest(run))
    meta = copy.deepcopy(found.meta)
    meta["position"] |= {"steps": 10_000} | place
    checkpoint.write(found.path.parent, found.path.stem, found.tensors, meta)
    with pytest.raises(InputError, match="is no training run's"):
        resume(run)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("W1", None), ("W1", np.zeros((5, 5), np.float32)), ("W1", np.zeros((4, 5))),
        ("W3", np.zeros((2, 2), np.float32)), ("optimizer.m", None),
        ("optimizer.v", np.zeros(3, np.float32)), ("optimizer.z", np.zeros(26, np.float32)),
        ("scaling.shift", None), ("scaling.scale", np.zeros(3)), ("scaling.scale", np.ones(2)),
        ("target_scaling.shift", np.zeros(1)), ("data", np.zeros(31, np.uint8)),
        ("\x1b[2J", np.zeros(1)),
    ],
)  # fmt: skip
def test_forged_tensors_are_refused(
    sound: Path, tmp_path: Path, name: str, array: np.ndarray | None
) -> None:
    run = tmp_path / "r"
    shutil.copytree(sound, run)
    found = checkpoint.read(newest(run))
    tensors = {**found.tensors, name: array}
    kept = {key: value for key, value in tensors.items() if value is not None}
    checkpoint.write(run / "checkpoints", newest(run).stem, kept, found.meta)
    for command, words in ((evaluate, [run]), (train, ["--run-dir", run, "--resume"])):
        assert "is no training run's" in refusal(run, command, *words)
