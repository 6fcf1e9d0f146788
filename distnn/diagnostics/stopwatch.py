"""Seconds by name, of functions that call one another: each second is counted once."""

import time
from collections.abc import Callable
from typing import Any


class Stopwatch:
    """Times the functions it is wrapped around; an inner one's time is not the outer one's.

    Attributes:
        seconds: by name, since the last `reset`.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]  # for each function under way: time spent in those it called

    def reset(self) -> None:
        """Begin anew."""
        self.seconds = dict.fromkeys(self.seconds, 0.0)

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, its own time counted under `name`."""
        self.seconds.setdefault(name, 0.0)
        clock, inner = time.perf_counter, self._inner

        def timed(*args: Any, **kwargs: Any) -> Any:
            inner.append(0.0)
            start = clock()
            try:
                return function(*args, **kwargs)
            finally:
                whole = clock() - start
                self.seconds[name] += whole - inner.pop()
                inner[-1] += whole

        return timed
