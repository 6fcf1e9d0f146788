"""How long ranks wait for other nodes, and whom they blame."""

import time
from types import SimpleNamespace
from typing import Any

import numpy as np

from distnn.parallel.watchdog.heartbeat import NUMBERS, Heartbeat
from distnn.parallel.watchdog.stall import WITHOUT_HEARTBEAT, StallDetector


def limit(rank: int, own: Any, *, has_heartbeat: bool = True) -> float:
    comm: Any = SimpleNamespace(rank=rank)
    return StallDetector(comm, SimpleNamespace(), "host", has_heartbeat, own)._limit_elsewhere(10.0)


def test_who_knows_most_reports_first() -> None:
    """The first node's leader, then the leaders of other nodes, then the other ranks."""
    own = object()
    assert 10 < limit(0, own) < limit(4, own) < limit(5, None) < 20
    assert limit(5, None, has_heartbeat=False) == WITHOUT_HEARTBEAT * 10


def test_a_silent_node_is_named_with_its_ranks() -> None:
    comm = SimpleNamespace(
        node_ranks=[(0, 2), (2, 5), (5, 6)], status=SimpleNamespace(stall_timeout=10.0)
    )
    one: Any = SimpleNamespace(
        _comm=comm, _partners=lambda: (1, 2), _hosts=["a", "b", "c"],
        _latest=np.zeros((3, NUMBERS)), _received_at=[time.monotonic() - 60] * 3,
    )  # fmt: skip
    assert Heartbeat.suspects(one) == [
        (2, "ranks 2 to 4 on b: no message for 60 s"), (5, "rank 5 on c: no message for 60 s"),
    ]  # fmt: skip
