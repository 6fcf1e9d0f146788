"""The bar on a terminal that mpirun writes to, and its absence in a log."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from launch import environment, mpirun_command

WORDS = ("--epochs", "40", "--batch-size", "500", "--slices", "4")


def on_a_terminal(folder: Path, then: str) -> str:
    """What a terminal of 120 columns shows of a job whose shell command ends with `then`."""
    train = [*mpirun_command(), "-n", "4", sys.executable, "-m", "distnn.train", *WORDS]
    command = " ".join(map(str, [*train, "--run-dir", folder / "r", then]))
    child, terminal = pty.fork()
    if child == 0:
        os.execvpe("bash", ["bash", "-c", command], environment())
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
    shown = b""
    try:
        while part := os.read(terminal, 4096):
            shown += part
    except OSError:  # its last process has ended
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, shown
    return shown.decode()


def test_a_bar_where_the_launcher_has_a_terminal(tmp_path: Path) -> None:
    pytest.importorskip("tqdm")
    if "HYDRA" not in subprocess.run([*mpirun_command(), "--version"], capture_output=True,
                                     text=True, check=True).stdout:  # fmt: skip
        pytest.skip("MPICH's mpirun")
    shown = on_a_terminal(tmp_path, "")
    bars = [line for line in shown.replace("\n", "\r").split("\r") if "|" in line]
    assert "epoch 40/40 |" in bars[-1]
    assert "320/320" in bars[-1]
    assert "train loss" in bars[-1]
    assert "samples/s" in bars[-1]
    assert all(len(line) <= 120 for line in bars)
    assert "epoch 40/40  train loss" not in shown  # no lines beside it
    assert "weights sha256" in shown.replace("\n", "\r").split("\r")[-5:][0] + shown[-400:]


def test_none_in_a_log_that_a_terminal_starts(tmp_path: Path) -> None:
    log = tmp_path / "log"
    shown = on_a_terminal(tmp_path, f"2> {log}")
    assert "|" not in shown
    lines = log.read_text().splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 40
    assert "|" not in log.read_text()
