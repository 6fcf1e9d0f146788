"""How every command starts and ends: one team, one line for an error, one exit code."""

import contextlib
import faulthandler
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import DistnnError, RankFailed
from .threads import default_to_one

if TYPE_CHECKING:
    from .parallel.team import Team
    from .parallel.watch import Watch

Command = Callable[["Team", Sequence[str]], None]


HELP = "help"
PATIENCE = 8.0  # seconds: ranks that end with one error do so together


class HelpShown(Exception):
    """The user asked for help and got it."""


def run(name: str, command: Command, *, begins_again: bool = False) -> NoReturn:
    """Run a command on all ranks and end this rank's process.

    Args:
        begins_again: see `StopSignals`.

    An error of the user's is printed as one line by rank 0, and every rank ends with its code.
    Any other exception is a failure of this rank: its traceback is printed and the whole job ends
    at once, because the other ranks would wait for this one forever.
    """
    # Until it has a handler, an interrupt ends a rank as any other signal does: as an exception it
    # would be told by every rank, and leave those waiting that are inside MPI.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    default_to_one()
    faulthandler.enable()
    from .parallel.mpi import MPI
    from .signals import StopSignals

    watch: Watch | None = None
    code = 0
    try:
        team, watch = _join()
        StopSignals(watch, begins_again=begins_again)
        threading.excepthook = lambda failed: _fail(watch, failed.exc_value)
        code = _outcome(name, command, team)
        _flush()
        watch.leave()
    except BaseException as error:
        _fail(watch, error)
    MPI.Finalize()
    sys.exit(code)


def _join() -> "tuple[Team, Watch]":
    from .parallel.team import Team
    from .parallel.watch import Watch

    team = Team()
    return team, Watch(team)


def _outcome(name: str, command: Command, team: "Team") -> int:
    """Run the command; its exit code."""
    try:
        command(team, sys.argv[1:])
    except HelpShown:
        return 0
    except RankFailed:
        time.sleep(PATIENCE)  # the job ends from there, with the reason told
        raise
    except DistnnError as error:
        if not team.all_here(PATIENCE):
            raise  # it rose here and not elsewhere: the others wait for this rank
        if team.is_first:
            print(f"distnn.{name}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


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


def _fail(watch: "Watch | None", error: BaseException | None) -> None:
    """End the job because of this rank's failure, told with its traceback if it is the first."""
    told = "".join(traceback.format_exception(error))
    if watch is not None:
        watch.fail(1, f"failed:\n{told}")
    print(f"distnn: a rank on {socket.gethostname()} failed:\n{told}", file=sys.stderr, flush=True)
    from .parallel.mpi import MPI

    MPI.COMM_WORLD.Abort(1)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
