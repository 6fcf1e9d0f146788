"""A Slurm of two nodes on this one machine, for the time of a test. Needs root.

with Slurm(tmp_path) as slurm:
    job = slurm.sbatch("--ntasks-per-node=2", script, ...)
    slurm.wait(job)
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from launch import environment

TOOLS = ("slurmctld", "slurmd", "sbatch", "munged", "mungekey")
NODES = 2
CONFIG = """\
ClusterName=distnn
SlurmctldHost={host}
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
KillWait=5
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs=4
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why there can be no Slurm here; empty where there can."""
    if os.geteuid() != 0:
        return "a Slurm of one's own needs root"
    missing = [tool for tool in TOOLS if _path(tool) is None]
    return f"no {', '.join(missing)} (Debian: slurm-wlm, munge)" if missing else ""


class Slurm:
    """A controller and two nodes that take jobs as soon as the context is entered.

    Args:
        folder: for its configuration, state and logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: list[subprocess.Popen[bytes]] = []
        self.environment = environment() | {"SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> "Slurm":
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel all jobs and end the daemons."""
        if len(self._daemons) > 1:
            subprocess.run(["scancel", "--user=root"], env=self.environment, timeout=20)
            with contextlib.suppress(TimeoutError):
                self.until(lambda: not self.run("squeue", "--noheader"), 10)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in reversed(self._daemons):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()

    def run(self, *command: object) -> str:
        """Run one of Slurm's commands; its standard output."""
        done = subprocess.run(
            [*map(str, command)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{command}: {done.stderr.strip()}")
        return done.stdout.strip()

    def sbatch(self, *arguments: object) -> int:
        """Submit a job; its number."""
        return int(self.run("sbatch", "--parsable", *arguments))

    def state(self, job: int) -> dict[str, str]:
        """What the controller knows about a job: JobState, Restarts, ExitCode, ..."""
        words = self.run("scontrol", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, job: int, states: tuple[str, ...] = ("COMPLETED",), timeout: float = 60) -> None:
        """Wait until the job is in one of these states; TimeoutError with what it is else."""
        try:
            self.until(lambda: self.state(job)["JobState"] in states, timeout)
        except TimeoutError:
            raise TimeoutError(f"job {job} is {self.state(job)}") from None

    def _start(self) -> None:
        folder = self.folder
        (folder / "state").mkdir(parents=True)
        folder.chmod(0o755)
        port = _free_ports(1 + NODES)
        host = socket.gethostname().split(".")[0]
        settings = {"host": host, "folder": folder, "nodes": NODES, "port": port}
        ports = {"first": port + 1, "last": port + NODES}
        (folder / "slurm.conf").write_text(CONFIG.format(**settings, **ports))
        _checked("mungekey", "--create", f"--keyfile={folder}/munge.key")
        self._daemon(
            "munged", "--foreground", "--force", f"--key-file={folder}/munge.key",
            f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid",
            f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed",
        )  # fmt: skip
        self.until((folder / "munge.socket").exists, 10)
        self._daemon("slurmctld", "-D", "-i")
        for number in range(1, NODES + 1):
            (folder / f"spool-n{number}").mkdir()
            self._daemon("slurmd", "-D", "-N", f"n{number}")
        self.until(self._ready, 20)

    def _ready(self) -> bool:
        try:
            return self.run("sinfo", "--noheader", "--format=%t %D") == f"idle {NODES}"
        except RuntimeError:
            return False  # the controller is not there yet

    def _daemon(self, name: str, *arguments: str) -> None:
        path = _path(name)
        assert path is not None
        with (self.folder / f"{name}{len(self._daemons)}.out").open("wb") as out:
            daemon = subprocess.Popen(
                [path, *arguments], env=self.environment, stdout=out, stderr=subprocess.STDOUT
            )
        self._daemons.append(daemon)

    def until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait for a condition; TimeoutError with what the daemons said."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                logs = [path.read_text()[-800:] for path in self.folder.glob("*.out")]
                raise TimeoutError(f"{seconds} s\n" + "\n".join(logs))
            time.sleep(0.1)


def _path(tool: str) -> str | None:
    return shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin")


def _checked(tool: str, *arguments: str) -> None:
    path = _path(tool)
    assert path is not None
    subprocess.run([path, *arguments], check=True, capture_output=True)


def _free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody listens on."""
    for first in range(17_000 + os.getpid() % 1000 * 8, 65_000, count):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("", port))
            except OSError:
                continue
            return first
    raise RuntimeError("no free ports")
