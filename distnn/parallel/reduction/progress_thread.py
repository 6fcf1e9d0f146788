"""A thread that makes MPI progress while the main thread computes.

MPI moves data when it is called, and a large product calls nobody for tens of milliseconds.
"""

import threading
import time
from collections.abc import Callable

import numpy as np

TICK = 0.001  # seconds: what is in flight meanwhile must be more than a link carries


class ProgressThread:
    """Does a piece of work again and again, and sleeps when there is nothing to do just now.

    Args:
        work: returns whether it did something; called by one thread at a time.
        start: False leaves all work to those who call `work`, where MPI allows one thread only.
    """

    def __init__(self, work: Callable[[], bool], *, start: bool = True) -> None:
        self._work, self._lock = work, threading.Lock()
        self._awake, self._closed = threading.Event(), False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="distnn progress", daemon=True)
        if start:
            self._thread.start()

    def work(self, work: Callable[[], bool]) -> bool:
        """Do a piece here and now, while the thread does not; whether there was something to do.

        Raises:
            BaseException: what rose in the other thread.
        """
        if self._error is not None:
            raise self._error
        with self._lock:
            return work()

    def wake(self) -> None:
        """There will be something to do from now on."""
        self._awake.set()

    def rest(self) -> None:
        """There is nothing to do until `wake`."""
        self._awake.clear()

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._awake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            with np.errstate(all="ignore"):  # as around the passes; each thread has its own
                while not self._closed:
                    self._awake.wait()
                    while self._awake.is_set() and self.work(self._work):
                        pass
                    time.sleep(TICK)
        except BaseException as error:
            self._error = error
