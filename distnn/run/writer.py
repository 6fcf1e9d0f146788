"""A thread that writes while training goes on."""

import threading
from collections import deque
from collections.abc import Callable


class Writer:
    """Does what it is given, one piece after the other, beside the thread that gives it.

    An error of a piece ends this: it goes to `threading.excepthook`, and rises in `wait`.
    """

    def __init__(self) -> None:
        self._pieces: deque[Callable[[], None]] = deque()
        self._given = self._done = 0
        self._is_running = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def give(self, piece: Callable[[], None]) -> int:
        """Have a piece of work done, after those before; its number, to wait for."""
        with self._changed:
            self._pieces.append(piece)
            self._given += 1
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name="distnn writer", daemon=True).start()
            return self._given

    def wait(self, number: int | None = None) -> None:
        """Wait until this piece is done, or all; raises the error of one that failed."""
        last = self._given if number is None else number
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or self._done >= last)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while piece := self._next():
            try:
                piece()
            except BaseException as error:
                self._error = error
                raise
            finally:
                with self._changed:
                    self._done += 1
                    self._changed.notify_all()

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            if self._pieces:
                return self._pieces.popleft()
            self._is_running = False  # the next piece gets a thread of its own
            return None
