"""What a rank's record holds, and what becomes of it; the file is read in tests/system."""

import dataclasses
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from distnn import InputError
from distnn.config.options import TrainConfig
from distnn.training.trace import (
    Recorder,
    checked,
    chosen_steps,
    marks,
    of_whole_steps,
    seconds_per_step,
    step_numbers,
)


def record(monkeypatch: pytest.MonkeyPatch, capacity: int) -> np.ndarray:
    """Two steps, 7 and 8, and an evaluation between; every entry takes a second."""
    now = iter(range(0, 10**12, 10**9))
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(now))
    recorder = Recorder(capacity)
    add = recorder.timed(np.add, "sum")
    assert recorder.timed(np.matmul, "product") is np.matmul
    out = np.zeros(1)
    recorder.begin_step(7)  # 0: the choice of the rows
    recorder.enter("input")  # no change
    recorder.enter("forward")  # 1
    recorder.enter("wait")  # 2
    recorder.enter("elementwise")  # 3: goes on forward
    recorder.enter("elementwise")  # no change
    recorder.enter("backward")  # 4
    add(np.ones(1), np.ones(1), out)  # 5, 6: goes on backward
    recorder.enter("rest")  # 7
    recorder.begin_step(0)  # 8
    recorder.enter("evaluation")  # 9
    recorder.enter("step")  # 10
    recorder.begin_step(8)  # 11
    recorder.enter("input")
    recorder.enter("rest")  # 12
    recorder.begin_step(0)  # 13
    assert out == 2
    return recorder.events()


def test_spans_follow_one_another_inside_their_step(monkeypatch: pytest.MonkeyPatch) -> None:
    events = record(monkeypatch, 100)
    assert of_whole_steps(events) is events
    first = [
        (0, "step 7"),
        (0, "rows"), (1, ""), (1, "forward"), (2, ""), (2, "wait"), (3, ""), (3, "forward"),
        (4, ""), (4, "backward"), (5, ""), (5, "sum"), (6, ""), (6, "backward"), (7, ""),
        (8, ""),
        (9, "evaluation"), (10, ""),
    ]  # fmt: skip
    second = [(11, "step 8"), (11, "rows"), (12, ""), (13, "")]
    assert list(marks(events[:, 0], events[:, 1] // 10**9)) == first + second
    assert step_numbers(events).tolist() == [7, 8]
    means = {"rest": 1, "rows": 1, "forward": 1, "backward": 1, "wait": 0.5, "sum": 0.5}
    assert seconds_per_step(events) == means  # 10 seconds of two steps


def test_a_full_record_ends_with_a_whole_step(monkeypatch: pytest.MonkeyPatch) -> None:
    events = of_whole_steps(record(monkeypatch, 13))  # the second step has begun
    assert step_numbers(events).tolist() == [7]
    assert list(marks(events[:, 0], events[:, 1]))[-1] == (10 * 10**9, "")
    assert len(of_whole_steps(record(monkeypatch, 5))) == 0


def test_what_cannot_be_written_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("perfetto", reason="pip install perfetto")
    path = tmp_path / "there"
    config = TrainConfig(trace=str(path))
    assert checked(config) is config
    with pytest.raises(InputError, match="trace-steps: step 2 is before step 3"):
        checked(dataclasses.replace(config, trace_steps="3:2"))
    with pytest.raises(InputError, match="nowhere: no such folder"):
        checked(dataclasses.replace(config, trace=str(tmp_path / "nowhere" / "trace")))
    path.touch()
    with pytest.raises(InputError, match="there: is there already; give another --trace"):
        checked(config)
    assert checked(dataclasses.replace(config, resume=True)).trace is None
    monkeypatch.setitem(sys.modules, "perfetto.trace_builder.proto_builder", None)
    with pytest.raises(InputError, match=r"perfetto.*pip install 'distnn\[trace\]'"):
        checked(config)
    assert chosen_steps("3:3") == range(3, 4)
