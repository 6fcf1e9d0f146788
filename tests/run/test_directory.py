"""A run's directory: never two runs in one, never a traceback for a bad path."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from distnn.errors import InputError
from distnn.run.directory import RunDirectory, default_path


def test_make_then_record(tmp_path):
    run = RunDirectory(tmp_path / "a" / "b")
    assert not run.holds_run()
    run.refuse_run()
    run.make_folders()
    run.record("epochs = 3\n", "1a")
    assert run.holds_run()
    assert run.config.read_text() == "epochs = 3\n"
    assert run.checkpoints.is_dir()
    run.make_folders()
    run.require_run()
    run.record("epochs = 4\n", "1a")
    assert run.config.read_text() == "epochs = 4\n"
    assert sorted(path.name for path in run.path.iterdir()) == [
        "checkpoints",
        "config.toml",
        "run.id",
    ]


def test_a_second_run_is_refused(tmp_path):
    RunDirectory(tmp_path).record("first", "1a")
    with pytest.raises(InputError, match="already holds a run; use --resume or another --run-dir"):
        RunDirectory(tmp_path).refuse_run()


def test_checkpoints_without_a_config_are_a_run(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-1.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="already holds a run"):
        RunDirectory(tmp_path).refuse_run()


def test_a_run_that_is_required_and_not_there(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        RunDirectory(tmp_path / "none").require_run()
    assert not list(tmp_path.iterdir())


CLAIM = "import sys; from distnn.run.directory import RunDirectory; r = RunDirectory(sys.argv[1]); "


def test_one_writer_and_a_dead_one_does_not_count(tmp_path):
    code = CLAIM + "r.claim(); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match=f"process {owner.pid} on .* is writing here"):
            RunDirectory(tmp_path).claim()
        owner.kill()
    run = RunDirectory(tmp_path)
    assert run.claim()
    other = [sys.executable, "-c", CLAIM + "r.claim()", str(tmp_path)]
    refused = subprocess.run(other, capture_output=True, text=True, check=False)
    assert f"process {os.getpid()} on " in refused.stderr
    run.release()
    run.release()
    subprocess.run(other, check=True)


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    assert not RunDirectory(tmp_path).claim()


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    run = RunDirectory(tmp_path / "r")
    run.make_folders()
    torn = [run.path / f".{name}.12.0123abcd.tmp" for name in ("config.toml", "metrics.jsonl")]
    torn.append(run.checkpoints / ".step-0000000009.safetensors.12.0123abcd.tmp")
    others = [run.path / ".mine.tmp", run.checkpoints / ".step-9.tmp", run.path / "a.tmp"]
    for path in torn + others:
        path.write_bytes(b"torn")
    run.remove_leftovers()
    assert all(path.exists() for path in torn)  # not before it is claimed
    run.claim()
    run.remove_leftovers()
    assert not any(path.exists() for path in torn)
    assert all(path.exists() for path in others)
    run.release()


def test_nothing_is_removed_through_a_link(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    torn = elsewhere / ".step-0000000009.safetensors.12.0123abcd.tmp"
    torn.write_bytes(b"another run is writing it")
    run = RunDirectory(tmp_path / "r")
    run.path.mkdir()
    run.checkpoints.symlink_to(elsewhere)
    run.claim()
    run.remove_leftovers()
    assert torn.exists()
    run.release()


@pytest.mark.parametrize("content", [b"do not lose me", None])
def test_a_lock_that_is_a_link_is_refused(tmp_path, content):
    target = tmp_path / "target"
    if content is not None:
        target.write_bytes(content)
    run = RunDirectory(tmp_path / "r")
    run.path.mkdir()
    run.lock.symlink_to(target)
    with pytest.raises(InputError, match=r"writer\.lock is a link"):
        run.claim()
    assert (target.read_bytes() if target.exists() else None) == content


def test_a_lock_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "writer.lock")
    with pytest.raises(InputError, match="not a file"):
        RunDirectory(tmp_path).claim()


@pytest.mark.parametrize("name", ["metrics.jsonl", "timings.jsonl", "summary.json"])
def test_files_of_something_else_are_not_taken_for_a_new_run(tmp_path, name):
    (tmp_path / name).write_text("{}\n")
    with pytest.raises(InputError, match="already holds a run"):
        RunDirectory(tmp_path).refuse_run()


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    for path in ("file", "file/below"):
        with pytest.raises(InputError, match="a file is in the way"):
            RunDirectory(tmp_path / path).make_folders()


@pytest.mark.parametrize("path", ["/proc/none", "/proc/self/a/b", "x" * 300])
def test_directories_that_cannot_be(path):
    with pytest.raises(InputError) as caught:
        RunDirectory(path).make_folders()
    assert path in str(caught.value)


def test_default_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = default_path("some where/fashion mnist.npz")
    assert path.parent.name == "runs"
    assert path.name.endswith("-fashion-mnist")
    stamp = path.name.removesuffix("-fashion-mnist")
    assert len(stamp) == 15
    path.mkdir(parents=True)
    assert default_path("digits").name.endswith("-digits")


def test_default_paths_of_one_second_differ(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda _: "20260101-000000")
    for expected in ("20260101-000000-a", "20260101-000000-a-2", "20260101-000000-a-3"):
        path = default_path("a.csv", tmp_path)
        assert path.name == expected
        path.mkdir()


@pytest.mark.parametrize("data", ["", ".", "..", "/", "../..", "a/../b.csv", "\n"])
def test_default_paths_stay_below_runs(tmp_path, data):
    path = default_path(data, tmp_path)
    assert path.parent == tmp_path
    assert path.name.count("-") >= 2
