"""Several hosts on one machine: network namespaces with a link of limited speed between them.

Each host has its own network, address and host name, so that MPI meets a cluster: ranks of one
host share memory, ranks of different hosts have nothing but TCP. Needs root.

    with Cluster(2) as cluster:
        cluster.mpirun([2, 2], "-m", "distnn.train")
"""

import contextlib
import itertools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from launch import Result, environment, mpirun_command

LINK = "net0"  # the interface of every host
RSH = Path(__file__).with_name("cluster-rsh")
PREFIX = "distnn"
NUMBERS = itertools.count()


def why_not() -> str:
    """Why there can be no cluster here; empty where there can."""
    if os.geteuid() != 0:
        return "hosts as network namespaces need root"
    missing = [tool for tool in ("ip", "tc", "unshare") if shutil.which(tool) is None]
    if missing:
        return f"no {', '.join(missing)} (Debian: iproute2, util-linux)"
    if "Open MPI" in subprocess.run([*mpirun_command(), "--version"], **PIPES).stdout:
        return "the test cluster is started by MPICH's mpirun"
    trial = subprocess.run(["unshare", "--net", "--uts", "true"], **PIPES)
    return "" if trial.returncode == 0 else f"no namespaces here: {trial.stderr.strip()}"


PIPES: dict[str, Any] = {"capture_output": True, "text": True, "check": False}


class Cluster:
    """Hosts 1 ... n, on one switch.

    Args:
        hosts: how many.
        rate: of each host's link, each way, as `tc` writes it.

    Raises:
        RuntimeError: a command failed; everything is taken down again.
    """

    def __init__(self, hosts: int, rate: str = "1gbit") -> None:
        self.hosts, self.rate = hosts, rate
        self.name = f"{PREFIX}{os.getpid()}-{next(NUMBERS)}"
        self._switch = f"{self.name}-switch"

    def __enter__(self) -> "Cluster":
        remove_left_behind()
        try:
            self._build()
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
        """End what runs on the hosts and remove them."""
        _remove([self.namespace(host) for host in range(1, self.hosts + 1)] + [self._switch])

    def namespace(self, host: int) -> str:
        """The network namespace that is this host."""
        return f"{self.name}-{host}"

    def command(self, ranks: Sequence[int], *command: object) -> list[str]:
        """The command line that starts `command`, on so many ranks of each host, from host 1.

        Args:
            ranks: of each host; the ranks of the first host come first.
        """
        hosts = ",".join(f"10.77.0.{host}:{n}" for host, n in enumerate(ranks, 1) if n)
        mpirun = [
            *mpirun_command(), "-hosts", hosts, "-iface", LINK,
            "-launcher", "ssh", "-launcher-exec", str(RSH),
            "-n", str(sum(ranks)), *map(str, command),
        ]  # fmt: skip
        return [str(RSH), "10.77.0.1", shlex.join(mpirun)]

    def environment(self) -> dict[str, str]:
        """What the command needs in its environment: TCP alone, as between real hosts."""
        return environment() | {"UCX_TLS": "tcp,self", "DISTNN_CLUSTER": self.name}

    def start(
        self,
        ranks: Sequence[int],
        *arguments: object,
        env: Mapping[str, str] | None = None,
        python: str = sys.executable,
    ) -> "subprocess.Popen[str]":
        """Start Python with these arguments on so many ranks of each host."""
        return subprocess.Popen(
            self.command(ranks, python, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment() | dict(env or {}),
            start_new_session=True,
        )

    def mpirun(
        self,
        ranks: Sequence[int],
        *arguments: object,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        python: str = sys.executable,
    ) -> Result:
        """Run Python with these arguments; raises TimeoutError, with all processes ended."""
        start = time.perf_counter()
        return self.finish(self.start(ranks, *arguments, env=env, python=python), start, timeout)

    def finish(self, process: "subprocess.Popen[str]", start: float, timeout: float) -> Result:
        """Wait for what `start` began; raises TimeoutError, with all processes ended."""
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            for host in range(1, self.hosts + 1):
                self.kill(host)
            process.kill()
            out, err = process.communicate()
            raise TimeoutError(f"{process.args}: {timeout} s\n{out}\n{err}") from None
        return Result(process.returncode, out, err, time.perf_counter() - start)

    def sent(self, host: int) -> int:
        """Bytes that the host has sent over its link so far, headers included."""
        return int(self._on(host, "cat", f"/sys/class/net/{LINK}/statistics/tx_bytes"))

    def unplug(self, host: int) -> None:
        """Take the host's link down."""
        self._on(host, "ip", "link", "set", LINK, "down")

    def kill(self, host: int) -> None:
        """Kill every process on the host."""
        _kill(self.namespace(host))

    def _build(self) -> None:
        _run("ip", "netns", "add", self._switch)
        switch = ("ip", "-n", self._switch, "link")
        _run(*switch, "add", "bridge", "type", "bridge")
        _run(*switch, "set", "bridge", "up")
        for host in range(1, self.hosts + 1):
            name, port = self.namespace(host), f"port{host}"
            _run("ip", "netns", "add", name)
            _run(*switch, "add", port, "type", "veth", "peer", "name", LINK, "netns", name)
            _run(*switch, "set", port, "master", "bridge", "up")
            inside = ("ip", "-n", name)
            _run(*inside, "addr", "add", f"10.77.0.{host}/24", "dev", LINK)
            _run(*inside, "link", "set", LINK, "up")
            _run(*inside, "link", "set", "lo", "up")
            limit = ("tbf", "rate", self.rate, "burst", "128k", "latency", "50ms")
            self._on(host, "tc", "qdisc", "add", "dev", LINK, "root", *limit)

    def _on(self, host: int, *command: str) -> str:
        return _run("ip", "netns", "exec", self.namespace(host), *command)


def remove_left_behind() -> None:
    """Remove the hosts of test runs that were killed before they could."""
    names = [line.split()[0] for line in _run("ip", "netns", "list").splitlines()]
    ours = [name for name in names if name.startswith(PREFIX) and "-" in name]
    owners = {name: name.removeprefix(PREFIX).split("-")[0] for name in ours}
    _remove([name for name, pid in owners.items() if not Path(f"/proc/{pid}").exists()])


def _remove(namespaces: Sequence[str]) -> None:
    for name in namespaces:
        if Path(f"/run/netns/{name}").exists():
            _kill(name)
            _run("ip", "netns", "delete", name)


def _kill(namespace: str) -> None:
    for pid in _run("ip", "netns", "pids", namespace).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def _run(*command: str) -> str:
    done = subprocess.run(command, **PIPES)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return str(done.stdout)
