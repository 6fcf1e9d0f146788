"""``--trace``: what every rank does in some of a job's steps, on a common clock, in one file.

    Loop --step, enter--> Trace --step--> Session --enter--> Recorder      on each rank
    Recorder --gather--> rank 0: clocks aligned, spans --> trace_file      after the last step

A session and its exchange say which phase of a step they are at, as they do for the profile of
`distnn.bench`. A rank's spans follow one another: a span lasts until another phase is entered, and
those of a step are inside the span of the step. What none of them covers is the end of a step,
where its loss is kept. What the thread beside a rank does, between nodes, is not seen.
"""

import dataclasses
import logging
import os
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distnn.config.options import TrainConfig
from distnn.errors import InputError, StopRequested
from distnn.nn.products import Product
from distnn.parallel.comm import clocks
from distnn.training.session import Session

if TYPE_CHECKING:  # rank 0's
    from distnn.run.trace_file import Mark, Track
    from distnn.training.run_files import RunFiles

PHASES = (
    "rest", "rows", "forward", "backward", "wait", "sum", "update", "exchange", "checkpoint",
    "evaluation",
)  # fmt: skip
REST, ROWS, BACK = 0, 1, -1
CODES = {name: code for code, name in enumerate(PHASES)}
CODES |= {"step": REST, "input": ROWS, "elementwise": BACK}
BETWEEN = frozenset(CODES[name] for name in ("wait", "sum", "update", "exchange"))
"""After these a rank goes BACK to what it was at."""

EVENTS = 1 << 16  # that a rank keeps, of 16 bytes; 20 steps have some hundreds, of large networks
MOST_EVENTS = 1 << 22  # that all ranks keep together

log = logging.getLogger(__name__)


class Recorder:
    """When this rank entered which phase; as a `Profiler`.

    Args:
        capacity: entries that are kept; those after them are not.
    """

    def __init__(self, capacity: int) -> None:
        self._codes, self._times = (array("q", bytes(8 * capacity)) for _ in range(2))
        self._capacity, self._count = capacity, 0
        self._step = 0  # its number times len(PHASES); 0 between steps
        self._phase = self._work = REST

    def begin_step(self, number: int) -> None:
        """A step begins, of a number from 1 on, with the choice of its rows; 0: it has ended."""
        self._step = number * len(PHASES)
        self._work = ROWS if number else REST
        self._put(self._work)

    def enter(self, phase: str) -> None:
        """This rank is in a phase from now on."""
        code = CODES[phase]
        if code == BACK:
            code = self._work
        elif code not in BETWEEN:
            self._work = code
        if code != self._phase:
            self._put(code)

    def timed(self, function: Product, phase: str) -> Product:
        """A sum in the backward pass as a phase of its own; products are parts of the passes."""
        if phase != "sum":
            return function

        def timed_function(X: Any, Y: Any, out: Any) -> None:
            self.enter(phase)
            function(X, Y, out)
            self.enter("elementwise")

        return timed_function

    def events(self) -> NDArray[np.int64]:
        """(n, 2): number of the step * len(PHASES) + phase, and when it was entered, in ns."""
        columns = [
            np.frombuffer(one, np.int64)[: self._count] for one in (self._codes, self._times)
        ]
        return np.stack(columns, axis=1)

    def _put(self, code: int) -> None:
        n = self._count
        if n < self._capacity:
            self._codes[n], self._times[n] = self._step + code, time.perf_counter_ns()
            self._count = n + 1
        self._phase = code


class Trace:
    """Steps of a session, of which some are recorded and then written. Methods are collective.

    Args:
        path: of the file.
        steps: which are recorded, counted from 1 in this job.
        files: on rank 0, of the run, if any.
    """

    def __init__(self, session: Session, path: str, steps: range, files: "RunFiles | None") -> None:
        self._session, self._comm = session, session.comm
        self._path, self._chosen, self._files = path, steps, files
        self._steps = 0  # so far in this job
        self._recorder: Recorder | None = None
        self._start: list[clocks.Offset] = []

    def enter(self, phase: str) -> None:
        """Another kind of work begins, see `RankStatus.enter`."""
        self._comm.status.enter(phase)
        if self._recorder is not None:
            self._recorder.enter(phase)

    def step(self, stop: int = 0) -> int:
        """`Session.step`."""
        self._steps += 1
        if self._steps not in self._chosen:
            return self._session.step(stop)
        recorder = self._recorder or self._begin()
        recorder.begin_step(self._session.position.steps + 1)
        stop = self._session.step(stop)
        recorder.begin_step(0)
        if self._steps == self._chosen[-1]:
            self.write()
        return stop

    def _begin(self) -> Recorder:
        self._session.exchange.flush()
        self._start = clocks.measure(self._comm)
        self._recorder = Recorder(min(EVENTS, MOST_EVENTS // self._comm.size))
        self._session.attach(self._recorder)
        return self._recorder

    def write(self) -> None:
        """Gather on rank 0 what was recorded since it was last written, and write it."""
        comm, recorder, self._recorder = self._comm, self._recorder, None
        if recorder is None:
            if not self._start and comm.is_first:
                what = f"the job had {self._steps} steps, and none of --trace-steps"
                log.warning("%s: no trace is written: %s", self._path, what)
            return
        self._session.exchange.flush()
        self._session.attach(None)
        end, events = clocks.measure(comm), recorder.events()
        counts = [hi - lo for lo, hi in comm.extents(events.size)]
        gathered, hosts = comm.gather(events.reshape(-1), counts), comm.gather_texts(comm.host)

        def save() -> None:
            assert gathered is not None
            assert hosts is not None
            parts = np.split(gathered, np.cumsum(counts)[:-1])
            self._save([part.reshape(-1, 2) for part in parts], hosts, end)

        comm.on_first(save)

    def _save(
        self, ranks: list[NDArray[np.int64]], hosts: list[str], end: list[clocks.Offset]
    ) -> None:
        """Rank 0: what cannot be written is no reason to end the training."""
        from distnn.run.files import reason
        from distnn.run.metrics import write_summary
        from distnn.run.trace_file import write_trace

        ranks = [of_whole_steps(events) for events in ranks]
        seconds = [seconds_per_step(events) for events in ranks]
        names = [f"node {node}: {hosts[lo]}" for node, (lo, _) in enumerate(self._comm.node_ranks)]
        try:
            write_trace(self._path, names, self._tracks(ranks, end))
            if self._files is not None:
                write_summary(self._files.directory.phases, {"ranks": seconds})
        except OSError as error:
            log.warning("%s: the trace cannot be written: %s", self._path, reason(error))
            return
        steps = min(len(step_numbers(events)) for events in ranks)
        text = f"{steps} steps of {len(ranks)} ranks"
        if len(names) > 1:
            error_ns = max(offset.error for offset in (*self._start, *end))
            text += f", clocks of {len(names)} nodes aligned to {error_ns / 1000:.0f} us"
        log.info("%s: %s", self._path, text)

    def _tracks(self, ranks: list[NDArray[np.int64]], end: list[clocks.Offset]) -> "list[Track]":
        """Of each rank, with times from the first one on."""
        from distnn.run.trace_file import Track

        nodes = [self._comm.node_of(rank) for rank in range(len(ranks))]
        times = [
            clocks.aligned(events[:, 1], self._start[node], end[node])
            for events, node in zip(ranks, nodes, strict=True)
        ]
        first = min((int(one[0]) for one in times if len(one)), default=0)
        return [
            Track(f"rank {rank}", nodes[rank], marks(events[:, 0], times[rank] - first))
            for rank, events in enumerate(ranks)
        ]


def of_whole_steps(events: NDArray[np.int64]) -> NDArray[np.int64]:
    """A rank's events without the step in which its record was full, if there is one."""
    step = events[:, 0] // len(PHASES)
    return events if step[-1] == 0 else events[step != step[-1]]


def step_numbers(events: NDArray[np.int64]) -> NDArray[np.int64]:
    """The steps that a rank's events are of."""
    return np.setdiff1d(events[:, 0] // len(PHASES), 0)


def seconds_per_step(events: NDArray[np.int64]) -> dict[str, float]:
    """Means over a rank's steps by phase, which add up to a step."""
    codes, seconds = events[:-1, 0], np.diff(events[:, 1]) / 1e9
    of_steps = codes >= len(PHASES)
    sums = np.bincount(codes[of_steps] % len(PHASES), seconds[of_steps], len(PHASES))
    means = sums / max(1, len(step_numbers(events)))
    return {name: mean for name, mean in zip(PHASES, means.tolist(), strict=True) if mean}


def marks(codes: NDArray[np.int64], times: NDArray[np.int64]) -> "Iterator[Mark]":
    """Begin and end of a rank's spans: its steps, and in and between them the phases."""
    step = 0
    for code, (start, end) in zip(codes.tolist(), pairwise(times.tolist()), strict=False):
        number, phase = divmod(code, len(PHASES))
        if number != step:
            if step:
                yield start, ""
            if number:
                yield start, f"step {number}"
            step = number
        if phase != REST:
            yield start, PHASES[phase]
            yield end, ""
    if step:
        yield int(times[-1]), ""


def checked(config: TrainConfig) -> TrainConfig:
    """Rank 0: the configuration, if the trace that it has can be written, before any work.

    A resumed job, which may be started by the same command, leaves the trace that is there.

    Raises:
        InputError: it cannot.
    """
    if config.trace is None:
        return config
    from distnn.run.trace_file import check

    if config.resume and os.path.isfile(config.trace):
        log.warning("%s is there already: this job is not traced", config.trace)
        return dataclasses.replace(config, trace=None)
    check(config.trace)
    chosen_steps(config.trace_steps)
    return config


def chosen_steps(text: str) -> range:
    """The steps that ``--trace-steps`` chooses; raises InputError."""
    first, last = map(int, text.split(":"))
    if last < first:
        raise InputError(f"step {last} is before step {first}", "--trace-steps")
    return range(first, last + 1)


@contextmanager
def tracing(
    session: Session, config: TrainConfig, files: "RunFiles | None"
) -> Iterator[Trace | None]:
    """The trace that a configuration has, if any; it is written at the end of the context."""
    if config.trace is None:
        yield None
        return
    trace = Trace(session, config.trace, chosen_steps(config.trace_steps), files)
    try:
        yield trace
    except StopRequested:
        trace.write()
        raise
    trace.write()
