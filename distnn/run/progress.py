"""How far a run is: a bar on a terminal, a line per epoch in a batch log. For rank 0 only."""

import contextlib
import importlib.util
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

REFRESH = 0.2  # seconds between two updates of the bar
LAUNCHERS = frozenset({"mpirun", "mpiexec", "mpiexec.hydra", "prterun", "orterun"})

log = logging.getLogger(__name__)


class Progress:
    """Shows on a stream how far training is.

    Args:
        mode: ``bar``, ``lines``, ``off``, or ``auto``: a bar if there is a terminal, else lines.
        stream: usually standard error. Where it is none, a bar is drawn on the terminal that the
            launcher writes to, see `launcher_terminal`.
        epochs: of the whole run.
        steps_until: the number of steps of the first so many epochs.
        epoch, step: reached by the run that is resumed; rate and time left are of what follows.

    A bar is drawn by tqdm, if that is installed; without it there are lines, and a warning where a
    bar was asked for. Messages that are logged while there is a bar are printed above it. A stream
    that is closed (``... | head``) ends the output, not the training.
    """

    def __init__(
        self,
        mode: str,
        stream: TextIO,
        epochs: int,
        steps_until: Callable[[int], int],
        epoch: int = 0,
        step: int = 0,
    ) -> None:
        self._own: TextIO | None = None  # a terminal that was opened here
        if mode in ("auto", "bar") and not stream.isatty():
            self._own = launcher_terminal()
        self.stream = stream if self._own is None else self._own
        self.epochs, self._steps_until = epochs, steps_until
        self._done = steps_until(epoch) + step
        self.mode = _shown_as(mode, self.stream)
        self._start = self._updated = time.perf_counter()
        self._bar: Any = None
        self._messages = contextlib.ExitStack()  # the redirection of messages
        self._steps = 0  # since the last update of the bar
        self._stride = 1 << 62  # steps between two looks at the clock; without a bar never
        if mode == "bar" and self.mode != "bar":
            log.warning("tqdm is not installed (pip install tqdm); printing one line per epoch")
        if self.mode == "bar":
            self._bar = _bar(self.stream, steps_until(epochs), self._done)
            self._name_epoch(epoch)
            self._messages.enter_context(_messages_above_the_bar(self.stream))
            self._stride = 1

    def step(self) -> None:
        """One step is done. Costs some 50 ns: the clock is read every so many steps only."""
        self._steps += 1
        if self._steps >= self._stride:
            self._update()

    def epoch(self, record: Mapping[str, Any], samples_per_second: float) -> None:
        """An epoch is done.

        Args:
            record: the epoch's line of ``metrics.jsonl``: epoch, train_loss and, where there is
                a test set, test_accuracy or test_r2.
            samples_per_second: of this epoch, see `RunWriter.epoch_done`.
        """
        if self.mode == "off":
            return
        text = _figures(record, samples_per_second)
        if self._bar is not None:
            self._name_epoch(record["epoch"])
            self._bar.set_postfix_str(text, refresh=False)
            self._update()
            return
        epoch, elapsed = record["epoch"], time.perf_counter() - self._start
        done = self._steps_until(epoch)
        per_step = elapsed / max(done - self._done, 1)
        left = per_step * (self._steps_until(self.epochs) - done)
        width = len(str(self.epochs))
        try:
            self.stream.write(f"epoch {epoch:{width}}/{self.epochs}  {text}  {_clock(left)} left\n")
            self.stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def close(self) -> None:
        """Leave the bar as it stands and end its line."""
        self._messages.close()
        bar, self._bar = self._bar, None
        if bar is not None:
            try:
                bar.update(self._steps)
                bar.close()
            except (OSError, ValueError):
                self._give_up()
        if self._own is not None:
            self._own.close()

    def _name_epoch(self, done: int) -> None:
        """The epoch that is under way after so many."""
        under_way = min(done + 1, self.epochs)
        self._bar.set_description_str(f"epoch {under_way}/{self.epochs}", refresh=False)

    def _update(self) -> None:
        now = time.perf_counter()
        if now - self._updated < REFRESH:
            self._stride += self._steps if self._steps < 1000 else 1000
            return
        try:
            self._bar.update(self._steps)
            self._bar.refresh()
        except (OSError, ValueError):
            self._give_up()
            return
        # aim at a few looks at the clock per refresh
        self._stride = max(1, int(self._steps * REFRESH / (now - self._updated) / 4))
        self._steps, self._updated = 0, now

    def _give_up(self) -> None:
        # nobody reads any more: no reason to end a training
        self._messages.close()
        self.mode, self._bar, self._stride = "off", None, 1 << 62


def launcher_terminal() -> TextIO | None:
    """The terminal that is the standard error of the ``mpirun`` that started this process.

    Under mpirun a rank writes to a pipe. Only a launcher on this machine is found, and only while
    it runs in the foreground: a log, a job in the background or on another machine get no bar.
    """
    process = os.getppid()
    try:
        while process > 1:
            folder = Path("/proc") / str(process)
            name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
            _, parent, group, _, _, foreground = rest.split()[:6]
            if name in LAUNCHERS:
                path = os.readlink(folder / "fd" / "2")
                is_terminal = path.startswith(("/dev/pts/", "/dev/tty"))
                return open(path, "w") if is_terminal and group == foreground else None
            process = int(parent)
    except (OSError, ValueError):  # another user's, or one that has just ended
        pass
    return None


def _shown_as(mode: str, stream: TextIO) -> str:
    if mode == "auto":
        mode = "bar" if stream.isatty() else "lines"
    if mode == "bar":
        return "bar" if importlib.util.find_spec("tqdm") else "lines"
    return mode


def _bar(stream: TextIO, steps: int, done: int) -> Any:
    # by name, so that type checks do not depend on an optional package
    tqdm = importlib.import_module("tqdm").tqdm
    tqdm.monitor_interval = 0  # no thread beside the ranks
    return tqdm(
        total=steps,
        initial=done,
        file=stream,
        unit="step",
        dynamic_ncols=True,
        mininterval=0,
        miniters=1 << 62,  # drawn by `refresh`, not by tqdm's own clock
        bar_format="{desc} |{bar}| {n_fmt}/{total_fmt} {elapsed}<{remaining}{postfix}",
    )


@contextlib.contextmanager
def _messages_above_the_bar(stream: TextIO) -> Iterator[None]:
    """While this context is open, tqdm prints what the package logs, above its bar."""
    package = logging.getLogger("distnn")
    logger = package if package.handlers else logging.getLogger()
    with importlib.import_module("tqdm.contrib.logging").logging_redirect_tqdm([logger]):
        for handler in logger.handlers:
            if type(handler).__module__.startswith("tqdm"):
                handler.stream = stream  # type: ignore[attr-defined]
        yield


def _figures(record: Mapping[str, Any], samples_per_second: float) -> str:
    parts = [f"train loss {record['train_loss']:.5g}"]
    for part in ("validation", "test"):
        accuracy, r2, loss = (record.get(f"{part}_{name}") for name in ("accuracy", "r2", "loss"))
        if accuracy is not None:
            parts.append(f"{part} accuracy {100 * accuracy:.2f} %")
        elif r2 is not None:
            parts.append(f"{part} r2 {r2:.4f}")
        elif loss is not None:
            parts.append(f"{part} loss {loss:.5g}")
    return "  ".join([*parts, f"{samples_per_second:,.0f} samples/s"])


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
