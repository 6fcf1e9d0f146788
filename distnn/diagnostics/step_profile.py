"""Where a step's time goes: the phases that a session and its exchange enter, on a stopwatch."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from distnn.nn.layout import Array
from distnn.nn.products import Product
from distnn.training.session import Session

PHASES = ("product", "elementwise", "wait", "sum", "update", "input", "rest")
PART_OF = {"forward": "elementwise", "backward": "elementwise", "exchange": "sum"}


class StepProfile:
    """Seconds of this rank by phase; at any time it is in one phase.

    product: matrix products; elementwise: the rest of the two passes; wait: for other ranks, and
    for their part of the work where one rank updates alone; sum: of gradients, and between nodes
    what is done for the exchange; update: the optimizer's rule; input: the batch's rows; rest: what
    is between them. What a thread does beside the passes is not seen.

    Attributes:
        seconds: by phase.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._phase, self._since = "rest", time.perf_counter()

    def enter(self, phase: str) -> None:
        """This rank is in a phase from now on."""
        now = time.perf_counter()
        self.seconds[self._phase] += now - self._since
        self._phase, self._since = PART_OF.get(phase, phase), now

    def timed(self, function: Product, phase: str) -> Product:
        """A function of the passes as a phase of its own; they are elementwise after it."""

        def timed_function(X: Array, Y: Array, out: Array) -> None:
            self.enter(phase)
            function(X, Y, out)
            self.enter("elementwise")

        return timed_function


@contextmanager
def profiled(session: Session) -> Iterator[StepProfile]:
    """Inside the context every step of the session is timed by its phases."""
    profile = StepProfile()
    session.attach(profile)
    try:
        yield profile
    finally:
        session.attach(None)
