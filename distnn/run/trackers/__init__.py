"""Trackers: where the figures of a run go beside its own files. Rank 0 alone has them.

``--tracker`` names some of `KNOWN`, or a class of your own as MODULE:CLASS. A record goes this way:
`RunWriter.epoch_done` -> `Trackers.log` -> a queue -> `Tracker.log`, in a thread of the tracker's
own: one that is slow, fails or hangs holds up neither the training nor the other trackers.
"""

import importlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from distnn.errors import InputError

KNOWN = {  # and the extra that each needs, with a package of it
    "tensorboard": ("distnn.run.trackers.tensorboard:TensorBoard", "tensorboardX"),
    "mlflow": ("distnn.run.trackers.mlflow:MLflow", "mlflow"),
}
SECONDS = 10.0  # that a tracker may take, at the end of a run, for what it has still to do

log = logging.getLogger(__name__)


class Run(NamedTuple):
    """What a tracker is given of a run.

    Attributes:
        directory: of the run; a tracker may keep a file of its own there.
        identity: the same after each resume.
        epochs: that are done: what a tracker has of later ones comes once more.
        options: of the run, by name.
    """

    directory: Path
    identity: str
    epochs: int
    options: Mapping[str, Any]


class Tracker(Protocol):
    """What a tracker does. Each call may take its time, and raise."""

    def start(self, run: Run) -> None:
        """A run begins or goes on."""

    def log(self, epoch: int, measures: Mapping[str, float]) -> None:
        """An epoch is done: its losses and metrics, learning rate, seconds, samples per second."""

    def finish(self, outcome: str, summary: Mapping[str, Any]) -> None:
        """The run ends: "finished" with what ``summary.json`` says, or "stopped", "diverged" or
        "failed" with nothing."""


def loaded(names: str | None) -> list[tuple[str, Tracker]]:
    """The trackers of a list with commas, by name.

    Raises:
        InputError: no such one, or its package is not installed.
    """
    return [(name, _loaded(name)) for name in (names or "").split(",") if name]


class Trackers:
    """Calls trackers from threads of their own, in order; see `Tracker`.

    A tracker that raises is left out from then on, with one warning.

    Args:
        seconds: that are waited for all of them at the end of a run.
    """

    def __init__(
        self, trackers: list[tuple[str, Tracker]], run: Run, seconds: float = SECONDS
    ) -> None:
        self._seconds = seconds
        self._workers = [_Worker(name, tracker) for name, tracker in trackers]
        self._is_open = True
        self._call(lambda tracker: tracker.start(run))

    def log(self, epoch: int, measures: Mapping[str, Any]) -> None:
        """An epoch is done; returns at once."""
        figures = {name: float(v) for name, v in measures.items() if isinstance(v, (int, float))}
        self._call(lambda tracker: tracker.log(epoch, figures))

    def finish(self, outcome: str, summary: Mapping[str, Any]) -> None:
        """The run ends; a second call does nothing."""
        if not self._is_open:
            return
        self._is_open = False
        self._call(lambda tracker: tracker.finish(outcome, summary))
        for worker in self._workers:
            worker.calls.put(None)
        until = time.monotonic() + self._seconds
        for worker in self._workers:
            if not worker.has_ended_by(until):
                what = "tracker %s: has not ended after %g s; the job goes on without it"
                log.warning(what, worker.name, self._seconds)

    def _call(self, work: Callable[[Tracker], None]) -> None:
        for worker in self._workers:
            worker.calls.put(work)


class _Worker:
    """One tracker, its thread and the calls that wait for it."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.name, self._tracker = name, tracker
        self.calls: queue.SimpleQueue[Callable[[Tracker], None] | None] = queue.SimpleQueue()
        # a daemon: a server that never answers must not keep the process from ending
        self._thread = threading.Thread(target=self._run, name=f"distnn {name}", daemon=True)
        self._thread.start()

    def has_ended_by(self, until: float) -> bool:
        """Wait until all calls are made, or for this time of `time.monotonic`."""
        self._thread.join(max(0.0, until - time.monotonic()))
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (work := self.calls.get()) is not None:
            try:
                work(self._tracker)
            except Exception as error:  # whatever it is, it is no reason to end a training
                what = "tracker %s: %s: %s; it gets nothing more, the run's own files are whole"
                log.warning(what, self.name, type(error).__name__, error)
                return


def _loaded(name: str) -> Tracker:
    place, package = KNOWN.get(name, (name, ""))
    module, _, kind = place.partition(":")
    if not kind:
        remedy = f"known: {', '.join(KNOWN)}, or MODULE:CLASS of your own"
        raise InputError(f"no such tracker {name[:60]!r}", "--tracker", remedy)
    try:
        tracker: Tracker = getattr(importlib.import_module(module), kind)()
        return tracker
    except ModuleNotFoundError as error:
        remedy = f"pip install 'distnn[{name}]'" if package else "run it where Python finds it"
        raise InputError(f"{error}", f"--tracker {name}", remedy) from None
    except Exception as error:  # of its constructor, or of what it imports
        what = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        remedy = "see distnn/report/README.md" if package else "mend it, or leave it out"
        raise InputError(what, f"--tracker {name}", remedy) from None
