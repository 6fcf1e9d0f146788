"""The stall timeout of a command line that nobody has checked yet, and who has not come."""

from types import SimpleNamespace
from typing import Any

import pytest

from distnn.parallel.comm.status import STALL_TIMEOUT
from distnn.parallel.watchdog.start import _Watch, stall_timeout


@pytest.mark.parametrize(
    ("words", "seconds"),
    [([], STALL_TIMEOUT), (["--epochs", "3"], STALL_TIMEOUT), (["--stall-timeout", "5"], 5.0),
     (["--stall-timeout=7", "--epochs", "2"], 7.0), (["--stall-timeout"], STALL_TIMEOUT),
     (["--stall-timeout", "x"], STALL_TIMEOUT), (["--stall-timeout", "-1"], STALL_TIMEOUT),
     (["--stall-timeout", "5", "--stall-timeout", "6"], 6.0)],
)  # fmt: skip
def test_stall_timeout(words: list[str], seconds: float) -> None:
    assert stall_timeout(words) == seconds


@pytest.mark.parametrize(("here", "ranks"), [("4", [1, 3]), ("2", [])])
def test_who_had_no_process_is_known_where_all_ranks_are_on_this_machine(
    here: str, ranks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", here)
    one: Any = SimpleNamespace(siblings={7: (1234, 0), 8: (1235, 2)})
    assert _Watch._never_seen(one) == ranks
