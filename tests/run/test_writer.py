"""Work beside the training: in order, waited for by number, and no error is lost."""

import threading
import time

import pytest

from distnn.run.writer import Writer


def test_pieces_are_done_in_order_beside_the_caller() -> None:
    writer, done, go = Writer(), [], threading.Event()
    writer.give(go.wait)
    for number in range(50):
        writer.give(lambda number=number: done.append((number, threading.current_thread())))
    assert done == []
    go.set()
    writer.wait()
    assert [number for number, _ in done] == list(range(50))
    assert threading.current_thread() not in {thread for _, thread in done}


def test_a_piece_is_waited_for_and_not_those_after_it() -> None:
    writer, go = Writer(), threading.Event()
    first = writer.give(lambda: None)
    writer.give(go.wait)
    writer.wait(first)
    go.set()
    writer.wait()
    writer.wait()  # nothing is there any more


def test_threads_go_when_there_is_nothing_to_do() -> None:
    before = threading.active_count()
    writers = [Writer() for _ in range(20)]
    for writer in writers:
        writer.give(lambda: None)
        writer.wait()
    until = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_an_error_goes_to_the_hook_and_rises_where_it_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caught = []
    monkeypatch.setattr(threading, "excepthook", lambda failed: caught.append(failed.exc_value))
    writer, done = Writer(), []

    def fail() -> None:
        raise ZeroDivisionError("injected")

    writer.give(fail)
    last = writer.give(lambda: done.append(1))
    for number in (None, last):
        with pytest.raises(ZeroDivisionError):
            writer.wait(number)
    until = time.monotonic() + 5
    while not caught and time.monotonic() < until:
        time.sleep(0.01)
    assert [type(error) for error in caught] == [ZeroDivisionError]
    assert done == []
