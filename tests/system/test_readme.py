"""What README.md shows is run as a reader would: its commands one after the other in one shell."""

import re
import shlex
import subprocess
import sys
import venv
from pathlib import Path
from xml.etree import ElementTree

import datasets
import pytest

import launch

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall((launch.ROOT / "README.md").read_text())
NEEDS = {
    "sbatch": "Slurm (tests/system/test_slurm.py has one)",
    "apt-get": "root",
    "kubectl": "Kubernetes",
}


def need(block: str) -> str | None:
    """What a block needs that is not here; None if it can be run."""
    commands = [line.split()[0] for line in block.splitlines()]
    return next((NEEDS[command] for command in commands if command in NEEDS), None)


SHELL = [text for language, text in BLOCKS if language == "sh"]
PYTHON = [text for language, text in BLOCKS if language == "python"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a .venv that is this environment, and the reader's own data."""
    for name in ("launch", "examples", "pyproject.toml"):
        (tmp_path / name).symlink_to(launch.ROOT / name)
    venv.create(tmp_path / ".venv", symlinks=True)
    for name, command in (("python", [sys.executable]), ("mpirun", launch.mpirun_command())):
        script = tmp_path / ".venv" / "bin" / name
        script.unlink(missing_ok=True)
        script.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        script.chmod(0o755)
    stamp = f"{tmp_path} mpich\n{(launch.ROOT / 'pyproject.toml').read_text()}"
    (tmp_path / ".venv" / "installed-mpich").write_text(
        stamp
    )  # launch/local has nothing to install
    datasets.penguins(tmp_path / "penguins.csv")
    return tmp_path


def test_commands_work_as_pasted(checkout: Path) -> None:
    script = "\n".join(["set -ex", *(block for block in SHELL if need(block) is None)])
    shown = subprocess.run(
        ["sh", "-c", script], stdin=subprocess.DEVNULL, cwd=checkout, env=launch.environment(),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for name in ("species.csv", "birds.html", "runs/birds/model.onnx"):
        assert (checkout / name).exists(), shown.stdout + shown.stderr


@pytest.mark.parametrize("block", [block for block in SHELL if need(block) is not None])
def test_commands_that_need_more(block: str) -> None:
    pytest.skip(f"needs {need(block)}: {block.strip()}")


@pytest.mark.parametrize("script", PYTHON)
def test_scripts_print_the_same_on_every_rank(tmp_path: Path, script: str) -> None:
    path = tmp_path / "script.py"
    path.write_text(script)
    # each rank to a file of its own: what two write to one pipe may run together
    of_rank = 'exec "$0" -m mpi4py "$1" >"$1-${PMI_RANK:-$OMPI_COMM_WORLD_RANK}"'
    shown = subprocess.run(
        [*launch.mpirun_command(), "-n", "2", "sh", "-c", of_rank, sys.executable, path],
        env=launch.environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stdout + shown.stderr
    outputs = [Path(f"{path}-{rank}").read_text() for rank in range(2)]
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) == 1


def test_is_short() -> None:
    assert len((launch.ROOT / "README.md").read_text().splitlines()) <= 150


def test_picture_shows_one_hash_four_times() -> None:
    picture = ElementTree.parse(launch.ROOT / "launch" / "recording.svg")
    hashes = [element.text for element in picture.iter() if element.get("class") == "hash"]
    assert len(hashes) == 4
    assert len(set(hashes)) == 1
