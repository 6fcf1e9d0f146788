"""Trains at several numbers of ranks, and through a kill, and compares what comes out.

`launch/invariance` runs this. It uses the mpirun beside this Python, else the one on the PATH.
"""

import argparse
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distnn.config.command_line import parse_train
from distnn.config.toml_file import to_toml
from distnn.errors import InputError
from distnn.training.slices import chosen_slices

MORE_RANKS_THAN_CORES = {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}  # Open MPI's
HEADING = f"{'seconds':>8} {'samples/s':>10}  {'sha256 of the weights':64}  ranks"


def main() -> int:
    """Print the table; 0 if all results are equal, else 1; 2 for bad input."""
    parser = argparse.ArgumentParser(
        "launch/invariance", description=__doc__.splitlines()[0], allow_abbrev=False,
        epilog="All other flags, and a CONFIG.toml, are those of python -m distnn.train.",
    )  # fmt: skip
    parser.add_argument("-n", default="1 2 3 5 8", help='numbers of ranks, as "1 2 3 5 8"')
    options, flags = parser.parse_known_args()
    try:
        counts = _counts(options.n)
        settings = parse_train(flags)
    except InputError as error:
        print(f"launch/invariance: {error}", file=sys.stderr)
        return 2
    slices = chosen_slices(settings.slices, settings.batch_size, max(counts))
    settings = dataclasses.replace(settings, slices=slices)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "config.toml"
        config.write_text(to_toml(settings))
        print(f"{settings.slices} slices\n{HEADING}", flush=True)
        results = [_row(folder / str(n), lambda run, n=n: _train(n, config, run)) for n in counts]
        run = folder / "stopped"
        results.append(_row(run, lambda run: _kill_and_resume(counts[-1], counts[0], config, run)))
    return _verdict(results)


def _row(run: Path, train: Callable[[Path], str]) -> tuple[Any, ...]:
    """Train, print a row of the table; returns what must be equal in all rows."""
    start = time.perf_counter()
    ranks = train(run)
    seconds = time.perf_counter() - start
    summary = json.loads((run / "summary.json").read_text())
    speed, weights = summary["samples_per_second"], summary["weights_sha256"]
    print(f"{seconds:8.2f} {speed:10,.0f}  {weights}  {ranks}", flush=True)
    return weights, summary["optimizer_sha256"], (run / "metrics.jsonl").read_bytes()


def _train(ranks: int, config: Path, run: Path) -> str:
    """A run from beginning to end."""
    _finish(_start(ranks, config, run))
    return str(ranks)


def _kill_and_resume(ranks: int, then: int, config: Path, run: Path) -> str:
    """A run whose rank 0 is killed at its second checkpoint, and which other ranks resume."""
    job = _start(ranks, config, run, "--checkpoint-every", "1s", "--keep", "9")
    while job.poll() is None and len(_checkpoints(run)) < 2:
        time.sleep(0.001)
    if job.poll() is None:
        writer = (run / "writer.lock").read_text().split()[1]  # "process NUMBER on HOST"
        os.kill(int(writer), signal.SIGKILL)
    job.communicate()
    reached = max(_checkpoints(run), default=0)
    _finish(_start(then, config, run, "--resume"))
    return f"{ranks}, killed after step {reached}, then {then}"


def _start(ranks: int, config: Path, run: Path, *flags: str) -> "subprocess.Popen[str]":
    beside = Path(sys.executable).with_name("mpirun")
    mpirun = str(beside) if beside.exists() else shutil.which("mpirun") or "mpirun"
    command = [mpirun, "-n", str(ranks), sys.executable, "-m", "distnn.train", str(config),
               "--run-dir", str(run), "--progress", "off", *flags]  # fmt: skip
    environment = MORE_RANKS_THAN_CORES | os.environ
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def _finish(job: "subprocess.Popen[str]") -> None:
    output = job.communicate()[0]
    if job.returncode != 0:
        print(output, file=sys.stderr)
        sys.exit(job.returncode)


def _checkpoints(run: Path) -> list[int]:
    """The steps after which there is a checkpoint."""
    names = [path.stem for path in run.glob("checkpoints/step-*.safetensors")]
    return [int(name.removeprefix("step-")) for name in names]


def _verdict(results: list[tuple[Any, ...]]) -> int:
    others = sum(result != results[0] for result in results)
    if others:
        print(f"{others} of {len(results)} runs differ from the first one")
        return 1
    print(f"{len(results)} times the same weights, optimizer state and metrics")
    return 0


def _counts(text: str) -> list[int]:
    try:
        counts = [int(word) for word in text.split()]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise InputError(f"{text!r}", where="-n", remedy='give numbers of ranks, as "1 2 3 5 8"')
    return counts


if __name__ == "__main__":
    sys.exit(main())
