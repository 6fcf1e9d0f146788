"""The stall timeout of a command line that nobody has checked yet."""

import pytest

from distnn.parallel.comm.status import STALL_TIMEOUT
from distnn.parallel.watchdog.start import stall_timeout


@pytest.mark.parametrize(
    ("words", "seconds"),
    [([], STALL_TIMEOUT), (["--epochs", "3"], STALL_TIMEOUT), (["--stall-timeout", "5"], 5.0),
     (["--stall-timeout=7", "--epochs", "2"], 7.0), (["--stall-timeout"], STALL_TIMEOUT),
     (["--stall-timeout", "x"], STALL_TIMEOUT), (["--stall-timeout", "-1"], STALL_TIMEOUT),
     (["--stall-timeout", "5", "--stall-timeout", "6"], 6.0)],
)  # fmt: skip
def test_stall_timeout(words: list[str], seconds: float) -> None:
    assert stall_timeout(words) == seconds
