"""What is said of ranks that failed, and where it is written."""

import os
from collections.abc import Iterable
from pathlib import Path

from distnn.parallel.comm.status import PHASES, RankRow

STATES = {"T": "stopped by a signal", "t": "held by a debugger", "Z": "dead", "X": "dead"}
REPORT_SECONDS = 0.2  # that the launcher has to pass a text on; it drops what it has not read
HALTED = set(STATES.values())
STATES |= {"R": "running", "S": "sleeping", "D": "waiting for a disk or network"}


def describe_rank(row: RankRow, host: str) -> str:
    """A rank and where it is in its work."""
    return f"rank {row.rank} on {host} (process {row.process}) in {describe_work(row)}"


def describe_deaths(rows: Iterable[RankRow], host: str) -> str:
    """The message that these ranks died; of several, nobody can say which was the first."""
    return f"{', '.join(describe_rank(row, host) for row in rows)} died; the job ends"


def describe_work(row: RankRow) -> str:
    """What a rank is at: ``step 12`` is the one that is not finished."""
    phase = PHASES[row.phase]
    if phase == "step":
        return f"step {row.steps + 1}"
    return f"{phase} after step {row.steps}" if row.steps else phase


def process_state(process: int) -> str:
    """What the system says a process does, one of STATES; empty where it says nothing."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    letter = stat.rpartition(")")[2].split()[0]
    return STATES.get(letter, "")


def write_report(text: str) -> None:
    """Write a message to standard error at once."""
    write_error(("distnn: " + text.rstrip("\n") + "\n").encode(errors="replace"))


def write_error(data: bytes) -> None:
    """Write to standard error past any lock that a stuck thread may hold."""
    try:
        while data:
            data = data[os.write(2, data) :]
    except OSError:
        return  # nobody reads it any more
