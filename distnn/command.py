"""How every command starts and ends: one communicator, one line for an error, one exit code."""

import contextlib
import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn, TypeVar

from distnn.blas_threads import default_to_one
from distnn.errors import DistnnError, InputError, RankFailed
from distnn.parallel.comm.launcher import launched_rank
from distnn.parallel.watchdog.start import StartGuard, stall_timeout

if TYPE_CHECKING:
    from distnn.parallel.comm.communicator import Communicator
    from distnn.parallel.watchdog.watchdog import Watchdog

Result = TypeVar("Result")
Command = Callable[["Communicator", Sequence[str]], None]


PATIENCE = 8.0  # seconds: ranks that end with one error do so together


class HelpShown(Exception):
    """The user asked for help and got it."""


def run(name: str, command: Command, *, begins_again: bool = False) -> NoReturn:
    """Run a command on all ranks and end this rank's process.

    Results go to standard output, messages and errors to standard error.

    Args:
        begins_again: see `StopSignals`.

    Bad input is printed as one line by rank 0, and every rank ends with the error's exit code.
    Any other exception is a failure of this rank: its traceback is printed and the whole job ends
    at once, because the other ranks would wait for this one forever.
    """
    # Until it has a handler, an interrupt ends a rank as any other signal does: as an exception,
    # every rank would print it, and those inside MPI would keep waiting.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    guard = StartGuard(stall_timeout(sys.argv[1:]), apart=True)
    default_to_one()
    faulthandler.enable()
    watch: Watchdog | None = None
    code = 0
    try:
        comm, watch = _join(name, guard)
        comm.status.stall_timeout = stall_timeout(sys.argv[1:])
        from distnn.parallel.comm.communicator import finalize
        from distnn.parallel.watchdog.signals import StopSignals

        StopSignals(watch, begins_again=begins_again)
        threading.excepthook = lambda failed: _fail(watch, failed.exc_value)
        if comm.is_first:
            _show_messages(name)
        code = _outcome(name, command, comm)
        _flush()
        watch.leave()
    except BaseException as error:
        guard.close()
        if isinstance(error, SystemExit) and watch is None:
            raise
        _fail(watch, error)
    # if a rank is stopped even there, the others get no message, but they end
    signal.setitimer(signal.ITIMER_REAL, comm.status.stall_timeout)
    finalize()
    sys.exit(code)


def _join(name: str, guard: StartGuard) -> "tuple[Communicator, Watchdog]":
    """Load MPI and meet the other ranks; without an MPI that can be used, end here."""
    try:
        from distnn.parallel.comm.communicator import Communicator
    except InputError as error:  # every process finds it, and none can ask the others
        guard.close()
        if launched_rank():
            time.sleep(1)  # a launcher may end all as soon as one has ended: rank 0 prints first
        else:
            print(f"distnn.{name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    from distnn.parallel.watchdog.watchdog import Watchdog

    comm = Communicator()
    watch = Watchdog(comm)
    guard.close()
    return comm, watch


def _outcome(name: str, command: Command, comm: "Communicator") -> int:
    """Run the command; its exit code."""
    try:
        command(comm, sys.argv[1:])
    except HelpShown:
        return 0
    except RankFailed:
        time.sleep(PATIENCE)  # the rank that failed ends the job, and prints the reason
        raise
    except DistnnError as error:
        if not comm.all_arrive(PATIENCE):
            raise  # only this rank raised it: the others wait for this one
        if comm.is_first:
            print(f"distnn.{name}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def on_first(
    comm: "Communicator", prepare: Callable[[Sequence[str]], Result], argv: Sequence[str]
) -> Result | None:
    """Rank 0 looks at the command line and what it names. Collective.

    Returns:
        What `prepare` makes of the arguments, on rank 0; None elsewhere.

    Raises:
        InputError: a flag, key, value or file cannot be used.
        HelpShown: help was asked for, and is printed.
    """

    def work() -> tuple[Result | None, bool]:
        from distnn.config.command_line import HelpRequested  # by rank 0 alone

        try:
            return prepare(argv), False
        except HelpRequested as help_text:
            print(help_text)
            return None, True

    result, is_help = comm.on_first(work) or (None, False)
    if comm.broadcast(is_help):
        raise HelpShown
    return result


def _fail(watch: "Watchdog | None", error: BaseException | None) -> None:
    """End the job because of this rank's failure; its traceback is printed if it is the first."""
    trace = "".join(traceback.format_exception(error))
    if watch is not None:
        watch.fail(1, f"failed:\n{trace}")
    rank = launched_rank() or 0
    where = f"rank {rank} on {socket.gethostname()} (process {os.getpid()})"
    print(f"distnn: {where} in start-up failed:\n{trace}", file=sys.stderr, flush=True)
    from distnn.parallel.watchdog.watchdog import end_job

    end_job(1)


def _show_messages(name: str) -> None:
    """What the package logs goes to standard error, on rank 0; see `Progress` for its bar."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"distnn.{name}: %(message)s"))
    log = logging.getLogger("distnn")
    log.addHandler(handler)
    log.setLevel(logging.INFO)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
