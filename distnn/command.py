"""How every command starts and ends: one team, one line for an error, one exit code."""

import contextlib
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import DistnnError
from .threads import default_to_one

if TYPE_CHECKING:
    from .parallel.team import Team

Command = Callable[["Team", Sequence[str]], None]


HELP = "help"


class HelpShown(Exception):
    """The user asked for help and got it."""


def run(name: str, command: Command) -> NoReturn:
    """Run a command on all ranks and end this rank's process.

    An error of the user's is printed as one line by rank 0, and every rank ends with its code.
    Any other exception is a failure of this rank: its traceback is printed and the whole job ends
    at once, because the other ranks would wait for this one forever.
    """
    default_to_one()
    from .parallel.mpi import MPI
    from .parallel.team import Team

    code = 0
    try:
        team = Team()
        try:
            command(team, sys.argv[1:])
        except HelpShown:
            pass
        except DistnnError as error:
            code = error.exit_code
            if team.is_first:
                print(f"distnn.{name}: {error}", file=sys.stderr)
    except BaseException:
        _report_failure(MPI.COMM_WORLD.rank)
        MPI.COMM_WORLD.Abort(1)
    _flush()
    MPI.Finalize()
    sys.exit(code)


def on_first(team: "Team", prepare: Callable[[Sequence[str]], Any], argv: Sequence[str]) -> Any:
    """Rank 0 looks at the command line and what it names; every rank gets the answer. Collective.

    Args:
        prepare: gets the arguments, returns what all ranks must know, as JSON can hold it.

    Raises:
        InputError: a flag, key, value or file cannot be used.
        HelpShown: help was asked for, and is printed.
    """
    from .run.commandline import HelpRequested

    def work() -> Any:
        try:
            return prepare(argv)
        except HelpRequested as help_text:
            print(help_text)
            return HELP

    answer = team.on_first(work)
    if answer == HELP:
        raise HelpShown
    return answer


def _report_failure(rank: int) -> None:
    with contextlib.suppress(OSError):
        print(
            f"distnn: rank {rank} on {socket.gethostname()} failed:\n{traceback.format_exc()}",
            file=sys.stderr,
            flush=True,
        )


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
