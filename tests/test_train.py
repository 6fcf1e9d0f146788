"""A run from its command line, on one rank: what is written, gone on with, and refused."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distnn.errors import InputError
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.run import checkpoint
from distnn.run.directory import RunDirectory
from distnn.run.position import Position
from distnn.train import open_run, train


def write(path: Path, shift: float = 0.0, rows: int = 40, **changes: Any) -> Path:
    x = np.random.default_rng(0).normal(size=(rows, 3)) + shift
    y = (x[:, 0] > shift).astype(int)
    np.savez(path, **({"x_train": x, "y_train": y, "x_test": x, "y_test": y} | changes))
    return path


CLAIM = "import sys; from distnn.run.directory import RunDirectory; r = RunDirectory(sys.argv[1]); "


class Run:
    """A command line that is given again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder / "run", write(folder / "set.npz")

    def __call__(self, *more: object, epochs: int = 3) -> dict[str, Any]:
        words = ["--data", self.data, "--run-dir", self.folder, "--epochs", epochs]
        words += ["--batch-size", 16, "--slices", 4, "--hidden", 5, "--progress", "off", *more]
        train(Communicator(MPI.COMM_SELF), [str(word) for word in words])
        return json.loads((self.folder / "summary.json").read_text())

    @property
    def files(self) -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in sorted(self.folder.rglob("*")) if p.is_file()}

    @property
    def metrics(self) -> list[dict[str, Any]]:
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def same(summary: dict[str, Any]) -> dict[str, Any]:
    """What two runs of equal result share."""
    clock = ("seconds", "samples_per_second")
    return {key: value for key, value in summary.items() if key not in clock}


def test_resume_starts_a_run_that_is_not_there(run: Run, tmp_path: Path) -> None:
    started = run("--resume")
    (tmp_path / "other").mkdir()
    assert same(started) == same(Run(tmp_path / "other")())


def test_a_finished_run_resumed_changes_nothing_that_counts(run: Run) -> None:
    first, before = run(), run.files
    again, after = run("--resume"), run.files
    assert same(again) == same(first)
    changing = ("summary.json", "writer.lock")
    assert {k: v for k, v in after.items() if not k.endswith(changing)} == {
        k: v for k, v in before.items() if not k.endswith(changing)
    }


def test_more_epochs_are_those_of_one_long_run(run: Run, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    straight = Run(tmp_path / "other")
    long = straight(epochs=5)
    run(epochs=2)
    assert same(run("--resume", epochs=5)) == same(long)
    assert run.metrics == straight.metrics
    assert "epochs = 5" in (run.folder / "config.toml").read_text()


def test_a_damaged_newest_checkpoint_is_skipped(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    first, metrics = run(), run.metrics
    newest = checkpoint.saved(run.folder / "checkpoints")[0]
    newest.write_bytes(newest.read_bytes()[:-9])
    assert same(run("--resume")) == same(first)
    assert run.metrics == metrics  # the repeated epoch's line stands there once
    assert newest.name in caplog.text


@pytest.mark.parametrize(
    "changes",
    [
        {"shift": 1.0},
        {"rows": 41},
        {"y_train": np.arange(40) % 2},
        {"x_train": np.random.default_rng(0).normal(size=(40, 3))[::-1]},
    ],
    ids=["moments", "rows", "targets", "order of rows"],
)
def test_other_data_are_refused(run: Run, changes: dict[str, Any]) -> None:
    run(epochs=2)
    before = run.files
    write(run.data, **changes)
    with pytest.raises(InputError, match=r"set\.npz: holds other data.*--run-dir"):
        run("--resume", epochs=3)
    assert [k for k in before if before[k] != run.files[k] and "lock" not in k] == []


@pytest.mark.parametrize(
    "flags", [("--seed", 1), ("--optimizer", "sgd"), ("--hidden", 6), ("--slices", 5)]
)
def test_other_settings_are_refused(run: Run, flags: tuple[object, ...]) -> None:
    run(epochs=2)
    words = ["--run-dir", str(run.folder), "--resume", *map(str, flags)]
    with pytest.raises(InputError, match=r"was given, but the run was started with"):
        train(Communicator(MPI.COMM_SELF), words)


def test_a_run_directory_is_used_once(run: Run) -> None:
    run()
    with pytest.raises(InputError, match="already holds a run; use --resume"):
        run()


def test_without_validation_the_best_checkpoint_has_the_least_training_loss(run: Run) -> None:
    run("--learning-rate", 0.3, epochs=12)
    losses = [record["train_loss"] for record in run.metrics]
    best = checkpoint.read(run.folder / "checkpoints" / "best.safetensors")
    assert best.meta["position"]["epoch"] == 1 + int(np.argmin(losses))
    assert best.meta["score"] == min(losses)


def test_the_best_of_all_survives_a_resume(run: Run, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    straight = Run(tmp_path / "other")
    for one, lengths in ((straight, [12]), (run, [4, 9, 12])):
        for epochs in lengths:
            one("--resume", "--learning-rate", 0.3, epochs=epochs)
    best = [checkpoint.read(one.folder / "checkpoints" / "best.safetensors")
            for one in (run, straight)]  # fmt: skip
    assert best[0].meta["position"] == best[1].meta["position"]


def test_without_a_test_set_the_training_loss_decides(run: Run) -> None:
    with np.load(run.data) as arrays:
        np.savez(run.data, x_train=arrays["x_train"], y_train=arrays["y_train"])
    assert "test_loss" not in run()
    assert (run.folder / "checkpoints" / "best.safetensors").exists()


def test_an_error_leaves_no_run_behind(run: Run) -> None:
    with pytest.raises(InputError):
        run("--momentum", 0.5)
    with pytest.raises(InputError, match="softmax over one output"):
        run("--output", "softmax", "--loss", "huber", "--task", "regression")
    run()  # the directory is free


@pytest.mark.parametrize(
    ("flags", "used"), [([], "of-the-job"), (["--run-dir", "of-the-flags"], "of-the-flags")]
)
def test_a_job_script_gives_a_default_run_directory(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], used: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTNN_RUN_DIR", "of-the-job")
    _, _, files = open_run(["--data", str(run.data), "--resume", *flags], ranks=1)
    assert files.directory.path == Path(used)
    files.close()


def test_what_all_ranks_receive(run: Run) -> None:
    content, _, files = open_run(["--data", str(run.data), "--run-dir", str(run.folder)], ranks=3)
    shared = json.loads(json.dumps(content))
    assert shared["config"]["slices"] == 8
    assert (shared["config"]["output"], shared["config"]["loss"]) == ("softmax", "cross-entropy")
    assert (shared["shape"]["features"], shared["shape"]["outputs"]) == (3, 2)
    assert files.position == Position()
    files.close()


def test_bad_input_leaves_no_directory(run: Run) -> None:
    with pytest.raises(InputError):
        run("--momentum", 0.5)
    assert not run.folder.exists()


def test_a_job_that_is_refused_removes_nothing(run: Run) -> None:
    """The left-overs may be files that the job with the lock is writing."""
    run(epochs=1)
    torn = run.folder / "checkpoints" / ".step-0000000006.safetensors.1.0123abcd.tmp"
    torn.write_bytes(b"half")
    code = CLAIM + "r.claim(); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(run.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="is writing here"):
            run("--resume", epochs=2)
        assert torn.exists()
        owner.kill()
    run("--resume", epochs=2)
    assert not torn.exists()


def test_a_run_begun_by_another_job_before_the_claim_is_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = RunDirectory.claim

    def late(directory: RunDirectory) -> bool:
        directory.record("epochs = 1\n", "1a")  # the other job, which has ended already
        return claim(directory)

    monkeypatch.setattr(RunDirectory, "claim", late)
    with pytest.raises(InputError, match="already holds a run"):
        run("--resume")
    assert not run.folder.joinpath("summary.json").exists()
