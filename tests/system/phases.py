"""One rank goes wrong, in every way at every phase of a command: does the job end in time, and who
is named?

    python tests/system/phases.py [--python PYTHON ...] [--rounds N] [--places ...] [--kinds ...]

From the first line of the command on. A rank that dies, raises an exception or leaves ends the job
within 10 seconds; one that is stopped within 10 seconds more than the stall timeout. The message
names the rank, and the job's exit code is not 0. One line is printed for each that is not so, and a
table at the end.
"""

import argparse
import collections
import itertools
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import launch

RANKS, LAST = 3, 2
KINDS = ("SIGKILL", "SIGSTOP", "exception", "exit", "_exit")
PLACES = (
    "first line", "start-up", "arguments", "start", "first step", "evaluation", "checkpoint",
    "finish",
)  # fmt: skip
SECONDS = 10  # from the fault to the end
LIMIT = 60  # until a job counts as hanging


def fault(python: str, kind: str, rank: int, place: str, stall: float, folder: Path) -> list[str]:
    """One job with one fault; what of the promise it did not keep."""
    moment = folder / "moment"
    paths = os.pathsep.join([str(Path(__file__).parent), str(launch.ROOT)])
    flags = ["--epochs", 4, "--batch-size", 500, "--progress", "off", "--stall-timeout", stall]
    try:
        result = launch.mpirun(
            RANKS, kind, rank, place, *flags, "--run-dir", folder / "run", module="faulty",
            env={"PYTHONPATH": paths, "DISTNN_FAULT": str(moment)}, python=python, timeout=LIMIT,
        )  # fmt: skip
    except TimeoutError as error:
        return [f"hangs: {str(error)[-400:]}"]
    if not moment.exists():
        return ["ended before its fault: " + result.stderr[-400:]]
    seconds = time.time() - float(moment.read_text())
    broken = []
    if seconds > SECONDS + (stall if kind == "SIGSTOP" else 0):
        broken.append(f"{seconds:.1f} s")
    if result.code == 0:
        broken.append("exit code 0")
    if not re.search(rf"rank {rank} on \S+", result.stderr):
        broken.append(f"rank not named: {result.stderr[:300]!r}")
    return broken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", nargs="+", default=[sys.executable])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--stall", type=float, default=3)
    parser.add_argument("--places", nargs="+", default=PLACES, choices=PLACES)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    options = parser.parse_args()
    kept: collections.Counter[tuple[str, str]] = collections.Counter()
    one_round = itertools.product(options.python, options.places, options.kinds, (0, LAST))
    cases = list(one_round) * options.rounds
    for python, place, kind, rank in cases:
        with tempfile.TemporaryDirectory() as folder:
            broken = fault(python, kind, rank, place, options.stall, Path(folder))
        kept[python, place] += not broken
        for text in broken:
            print(f"{python} {kind} rank {rank} {place}: {text}", flush=True)
    each = len(cases) // len(options.python) // len(options.places)
    for python, place in itertools.product(options.python, options.places):
        print(f"{python} {place:11} {kept[python, place]:3} of {each}")
    print(f"{kept.total()} of {len(cases)} ended in time, not with 0, with the rank named")


if __name__ == "__main__":
    main()
