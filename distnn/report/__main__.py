"""Write a page about runs: ``python -m distnn.report RUN [RUN ...] --output FILE.html``.

Rank 0 reads and writes; other ranks only help where networks are applied.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distnn.command import on_first, run

if TYPE_CHECKING:
    from distnn.config.commands import ReportConfig
    from distnn.parallel.comm.communicator import Communicator
    from distnn.report.page import Applied

GENERATOR = b'<meta name="generator" content="distnn">'
MOST_RUNS = 18  # as many as colours and dashes distinguish


def report(comm: "Communicator", argv: Sequence[str]) -> None:
    """Write the page as the arguments say."""
    from distnn.config.commands import ReportConfig

    config = ReportConfig.from_dict(comm.broadcast(on_first(comm, _parse, argv)))
    applied: list[Applied] = []
    if config.evaluate:
        from distnn.report.apply import apply

        applied = [apply(comm, path) for path in config.run]
    while comm.broadcast(comm.on_first(lambda: write(config, applied))):
        time.sleep(config.every)
    if comm.is_first:
        print(f"page in {config.output}")


def write(config: "ReportConfig", applied: "Sequence[Applied]" = ()) -> bool:
    """Write the page once; whether it is to be written again.

    Raises:
        InputError: a run cannot be read, or the file not written.
    """
    from distnn.errors import InputError
    from distnn.report.page import page
    from distnn.report.record import UNDER_WAY, read_object, read_run
    from distnn.run.files import reason, write_output

    records = [read_run(path) for path in config.run]
    bench = None if config.bench is None else read_object(Path(config.bench))
    refresh = config.every if config.watch else 0
    text = page(records, applied=applied, bench=bench, refresh=refresh)
    try:
        write_output(
            Path(config.output), lambda aside: aside.write_bytes(text.encode(errors="replace"))
        )
    except OSError as error:
        raise InputError(f"cannot be written: {reason(error)}", config.output) from None
    return config.watch and any(one.status == UNDER_WAY for one in records)


def _parse(argv: Sequence[str]) -> dict[str, Any]:
    from distnn.config.command_line import parse_report  # by rank 0 alone
    from distnn.errors import InputError

    config = parse_report(argv)
    if len(config.run) > MOST_RUNS:
        raise InputError(f"{len(config.run)} runs", "RUN", f"give at most {MOST_RUNS}")
    if os.path.isfile(config.output) and not _is_page(config.output):
        what = "is there already, and is no page of distnn"
        raise InputError(what, config.output, "give another --output")
    return config.to_dict()


def _is_page(path: str) -> bool:
    """Whether a file is a page that this command wrote, which it may write anew."""
    with open(path, "rb") as file:
        return GENERATOR in file.read(1000)


if __name__ == "__main__":
    run("report", report)
