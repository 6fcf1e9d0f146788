"""Progress: lines in a log, a bar on a terminal, and never an end of the training."""

import importlib.util
import io
import logging

import pytest

from distnn.run.progress import REFRESH, Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Closed(Terminal):
    def write(self, _):
        raise BrokenPipeError


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves by hand."""
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


def steps_of(number):
    """So many steps in each epoch."""
    return lambda epochs: number * epochs


def train(progress, epochs, steps, clock=None, seconds=0.0):
    for epoch in epochs:
        for _ in range(steps):
            if clock:
                clock[0] += seconds
            progress.step()
        progress.epoch({"epoch": epoch, "train_loss": 1 / epoch, "test_accuracy": 0.955}, 12345.6)
    progress.close()


def test_lines(clock):
    stream = io.StringIO()
    train(Progress("auto", stream, 10, steps_of(4)), range(1, 11), 4, clock, 100.0)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[1] == (
        "epoch  2/10  train loss 0.5  test accuracy 95.50 %  12,346 samples/s  0:53:20 left"
    )
    assert "0:00:00 left" in lines[-1]
    assert not any(set(line) & {"\r", "\x1b"} for line in lines)


def test_time_left_of_a_resumed_run(clock):
    stream = io.StringIO()
    train(Progress("lines", stream, 10, steps_of(1), epoch=8), [9, 10], 1, clock, 60.0)
    assert "0:01:00 left" in stream.getvalue().splitlines()[0]


@pytest.mark.parametrize(
    ("extra", "part"),
    [({"test_r2": 0.5}, "test r2 0.5000"), ({"test_loss": 2.0}, "test loss 2"), ({}, "train loss")],
)
def test_figures(extra, part):
    stream = io.StringIO()
    Progress("lines", stream, 1, steps_of(1)).epoch({"epoch": 1, "train_loss": 0.5} | extra, 1.0)
    assert part in stream.getvalue()


def test_off():
    stream = Terminal()
    progress = Progress("off", stream, 2, steps_of(3))
    train(progress, [1, 2], 3)
    assert stream.getvalue() == ""


def test_without_tqdm_there_are_lines(monkeypatch, caplog):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    stream = Terminal()
    train(Progress("auto", stream, 2, steps_of(3)), [1, 2], 3)
    assert len(stream.getvalue().splitlines()) == 2
    stream = Terminal()
    train(Progress("bar", stream, 2, steps_of(3)), [1, 2], 3)
    assert "tqdm is not installed" in caplog.text
    assert len(stream.getvalue().splitlines()) == 2


def test_bar_counts_every_step_and_looks_seldom(clock):
    pytest.importorskip("tqdm")
    stream = Terminal()
    train(Progress("auto", stream, 2, steps_of(5000)), [1, 2], 5000, clock, REFRESH / 400)
    drawn = stream.getvalue().split("\r")
    assert "10000/10000" in drawn[-1]
    assert "test accuracy 95.50 %" in drawn[-1]
    assert 10 <= len(drawn) <= 40  # 25 times REFRESH


def test_bar_of_slow_steps(clock):
    pytest.importorskip("tqdm")
    stream = Terminal()
    train(Progress("bar", stream, 2, steps_of(5)), [1, 2], 5, clock, 10.0)
    for step in range(1, 11):
        assert f" {step}/10 " in stream.getvalue()


def test_a_message_is_printed_above_the_bar_and_does_not_tear_it(monkeypatch, clock):
    pytest.importorskip("tqdm")
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    package = logging.getLogger("distnn")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("distnn.train: %(message)s"))
    monkeypatch.setattr(package, "handlers", [handler])
    progress = Progress("bar", stream, 1, steps_of(10))
    for _ in range(5):
        clock[0] += 1
        progress.step()
    logging.getLogger("distnn.run").warning("a message")
    progress.close()
    assert package.handlers == [handler]
    before, after = stream.getvalue().split("distnn.train: a message\n")
    assert before.endswith("\r")  # the bar's line was cleared
    assert not before.rsplit("\r", 2)[-2].strip()
    assert "5/10" in after  # and drawn again below


def test_a_closed_stream_ends_the_output_only():
    progress = Progress("lines", Closed(), 2, steps_of(3))
    train(progress, [1, 2], 3)
    assert progress.mode == "off"


def test_a_closed_terminal_ends_the_output_only(clock):
    pytest.importorskip("tqdm")
    stream = Terminal()
    progress = Progress("bar", stream, 2, steps_of(3))
    stream.close()
    train(progress, [1, 2], 3, clock, 10.0)
    progress.epoch({"epoch": 2, "train_loss": 1.0}, 1.0)  # nobody reads this
    assert progress.mode == "off"
