"""What an engine sends, and when: less urgent messages do not fill the link ahead of time."""

import time

import pytest

from distnn.parallel.reduction import engine
from distnn.parallel.reduction.engine import Engine, Outgoing


class Sent:
    """A request that leaves at once, into the system's buffers."""

    def __init__(self, log: list["Sent"]) -> None:
        self._log = log

    def Start(self) -> None:
        self._log.append(self)

    def Test(self) -> bool:
        return True


@pytest.fixture
def log() -> list[Sent]:
    return []


@pytest.fixture
def sender(log: list[Sent]) -> Engine:
    """An engine with five messages of 100 bytes to send, and a window of 250."""
    sender = Engine.__new__(Engine)
    sender._queue, sender._sending, sender._window, sender._ahead = [], [], 250, 0
    sender._moved = time.monotonic()
    sender._enqueue([Outgoing(number, number, Sent(log), 100) for number in range(5)])  # type: ignore[arg-type]
    return sender


def test_empty_buffers_do_not_open_the_window(
    sender: Engine, log: list[Sent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "PATIENCE", 60.0)
    for _ in range(10):
        sender._send()
    assert len(log) == 3  # 300 bytes: the last one started below 250


def test_what_comes_opens_the_window_and_the_most_urgent_goes_first(
    sender: Engine, log: list[Sent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "PATIENCE", 60.0)
    sender._send()
    urgent = Sent(log)
    sender._enqueue([Outgoing(-1, 9, urgent, 100)])  # type: ignore[arg-type]
    sender._send()
    assert urgent not in log
    sender._ahead -= 100
    sender._send()
    assert log[3:] == [urgent]


def test_nothing_waits_for_ever_where_nothing_comes(
    sender: Engine, log: list[Sent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "PATIENCE", 0.01)
    until = time.monotonic() + 5
    while len(log) < 5 and time.monotonic() < until:
        sender._send()
    assert len(log) == 5
