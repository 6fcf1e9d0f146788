"""Promise 3 under fire: a handful of the kills that kills.py as a script does by the 100."""

import sys
from pathlib import Path

from kills import kill_and_compare


def test_killed_at_random_instants_and_resumed_elsewhere(tmp_path: Path) -> None:
    happened = kill_and_compare(4, 0, [sys.executable], tmp_path)
    assert sum(happened.values()) >= 4
