"""SIGTERM, SIGINT and SIGUSR1 ask a command to stop; a second one ends the job at once.

A handler in Python runs only when the interpreter has its turn, which it never has while a rank
waits inside MPI. So the signal's number goes through a pipe to the watchdog's thread.
"""

import os
import signal
import time

from distnn.errors import StopRequested
from distnn.parallel.watchdog.watchdog import Watchdog

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
ONE_REQUEST = 1.0  # seconds; Ctrl-C reaches a rank from the terminal and from the launcher


class StopSignals:
    """What the signals of this process mean: `comm.status.stop`, or the end of the job at once.

    Args:
        begins_again: a command that is stopped before there is anything to save ends with the exit
            code of one that is stopped later, so that a job script runs it again then, too.
    """

    def __init__(self, watchdog: Watchdog, *, begins_again: bool) -> None:
        self._watchdog, self._status = watchdog, watchdog.comm.status
        self._begins_again = begins_again
        self._first: float | None = None
        read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, _leave_to_pipe)
        watchdog.on_readable(read, self._received)

    def _received(self, numbers: bytes) -> None:
        for number in numbers:
            if number in SIGNALS:
                self._handle(number)

    def _handle(self, number: int) -> None:
        now = time.monotonic()
        name = signal.Signals(number).name
        if self._status.stop is None:
            code = StopRequested.exit_code if self._begins_again else 128 + number
            self._watchdog.fail(code, f"got {name}: it ends at once, with nothing to save")
        elif self._first is None:
            self._first = now
            self._status.stop()
        elif now - self._first > ONE_REQUEST:
            self._watchdog.fail(128 + number, f"got a second signal, {name}: it ends at once")


def _leave_to_pipe(number: int, frame: object) -> None:
    """Do nothing: Python writes the number to the pipe only of a signal that has a handler."""
