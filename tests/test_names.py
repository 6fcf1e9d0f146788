"""What a user sees of the package before reading anything."""

import subprocess
import sys

import distnn
from distnn.__main__ import COMMANDS


def test_dir_shows_the_public_names() -> None:
    assert set(distnn.__all__) <= set(dir(distnn))
    assert "__version__" in dir(distnn)


def test_the_package_lists_its_commands() -> None:
    command = [sys.executable, "-m", "distnn"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    names = [line.split()[2] for line in result.stdout.splitlines()]
    assert names == [f"distnn.{name}" for name in COMMANDS]
    result = subprocess.run([*command, "train", "--epochs", "3"], capture_output=True, text=True)
    assert result.returncode == 1  # nothing was trained
    assert "train is started by python -m distnn.train" in result.stderr
