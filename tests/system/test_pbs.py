"""launch/pbs.sh, with stand-ins for the commands of PBS and for the clock."""

import os
import socket
import subprocess
from pathlib import Path

import datasets
import pytest

from launch import ROOT, environment, mpirun_command, run_metrics, run_summary, train

SCRIPT = ROOT / "launch" / "pbs.sh"
FLAGS = "--slices 4 --batch-size 20 --progress lines"
pytestmark = pytest.mark.skipif(
    len(mpirun_command()) > 1, reason="launch/pbs.sh as it stands is for MPICH's mpirun"
)

# As OpenPBS shows a job: long lines go on behind a tab.
QSTAT = """\
#!/bin/sh
[ "$*" = "-f 7.server" ] || exit 1
printf 'Job Id: 7.server\\n    Job_Name = distnn\\n    queue = small_execution
    Account_Name = climate
    Resource_List.mpiprocs = 2\\n    Resource_List.ncpus = 2\\n    Resource_List.nodect = 1
    Resource_List.place = scatter:excl
    Resource_List.select = 1:ncpus=2:mpiprocs=2:mem=8192mb:scratch_local=8192mb:cl_
\\ttwo=true:host=node1
    Resource_List.walltime = 01:02:05
    Variable_List = PBS_O_HOME=/home/someone,PBS_O_QUEUE=small,
\\tPBS_O_WORKDIR=/home/someone/work
    project = _pbs_project_default\\n'
"""
QSUB = '#!/bin/sh\nprintf "%s\\n" "$@" >submitted\n'
SLEEP = """\
#!/bin/sh
echo "$1" >limit
until [ "$(wc -l 2>/dev/null <job/metrics.jsonl)" -gt 5 ] 2>/dev/null; do /bin/sleep 0.1; done
"""


def job(folder: Path, number: int, **variables: str) -> "subprocess.CompletedProcess[str]":
    """The script as a job of PBS's runs, in a copy of its own."""
    copy = folder / f"{number}.SC"
    copy.write_text(SCRIPT.read_text())
    nodes = folder / "nodes"
    nodes.write_text(f"{socket.gethostname()}\n" * 2)
    variables |= {
        "PBS_JOBID": f"{number}.server", "PBS_O_QUEUE": "small",
        "PBS_O_WORKDIR": str(folder), "PBS_NODEFILE": str(nodes),
    }  # fmt: skip
    paths = [folder / "bin", Path(mpirun_command()[0]).parent, os.environ["PATH"]]
    variables["PATH"] = os.pathsep.join(map(str, paths))
    return subprocess.run(
        ["sh", copy], env=environment() | variables, capture_output=True, text=True, timeout=60
    )


def test_at_its_time_limit_a_job_goes_on_in_another_like_it(tmp_path: Path) -> None:
    folder = tmp_path / "jobs"
    for name, text in {"qstat": QSTAT, "qsub": QSUB, "sleep": SLEEP}.items():
        command = folder / "bin" / name
        command.parent.mkdir(parents=True, exist_ok=True)
        command.write_text(text)
        command.chmod(0o755)
    data = datasets.classes(tmp_path / "classes.npz")
    arguments = f"--data {data} --epochs 150 {FLAGS}"
    train(1, *arguments.split(), "--run-dir", tmp_path / "one")

    first = job(folder, 7, ARGS=arguments, DISTNN_RUN_DIR="job")
    assert first.returncode == 0, first.stderr
    assert 5 < len(run_metrics(folder / "job")) < 150
    assert (folder / "limit").read_text() == "3605\n"  # the walltime less two minutes
    assert (folder / "submitted").read_text().splitlines() == [
        "-v", f"ARGS={arguments},DISTNN_RUN_DIR=job", "-q", "small",
        "-l", "select=1:ncpus=2:mpiprocs=2:mem=8192mb:scratch_local=8192mb:cl_two=true:host=node1",
        "-l", "place=scatter:excl", "-l", "walltime=01:02:05", "-A", "climate",
        str(folder / "7.SC"),
    ]  # fmt: skip

    second = job(folder, 8, ARGS=arguments, DISTNN_RUN_DIR="job")
    assert second.returncode == 0, second.stderr
    summary, expected = run_summary(folder / "job"), run_summary(tmp_path / "one")
    assert summary["weights_sha256"] == expected["weights_sha256"]


def test_a_run_directory_of_the_config_is_used(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('epochs = 1\nrun_dir = "named/here"\n')
    ended = job(tmp_path, 9, ARGS=f"config.toml {FLAGS}")
    assert ended.returncode == 0, ended.stderr
    assert run_summary(tmp_path / "named" / "here")["ranks"] == 2
    assert not (tmp_path / "runs").exists()


def test_bad_input_fails_the_job_and_submits_nothing(tmp_path: Path) -> None:
    ended = job(tmp_path, 9, ARGS="--data none.npz")
    assert ended.returncode == 2
    assert "none.npz" in ended.stderr
    assert not (tmp_path / "submitted").exists()
