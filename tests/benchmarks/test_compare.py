"""A self-check of the comparison: without peers, on a network that takes no time."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import compare


def test_medians_skip_what_failed():
    rounds = [[1.0, None, 3.0], [5.0, None, None], [2.0, None, 4.0]]
    assert compare.medians(rounds) == [2.0, None, 3.5]


def test_table_compares_each_peer_with_its_counterpart():
    ours = {"distnn 1": [2e-6], "distnn 2": [1e-6], "sharded 2": [2e-6], "distnn 8": [4e-6]}
    peers = {"torch 1": [3e-6], "torch 2": [5e-6], "torch 8": [6e-6], "jax 1": [1e-6]}
    lines = compare.table(ours | peers, ["4-2:8"]).splitlines()
    names = "distnn 1 | distnn 2 | sharded 2 | distnn 8 | torch 1 | torch 2 | torch 8 | jax 1"
    assert lines[0] == f"| network, batch | {names} |"
    assert (
        lines[2]
        == "| 4-2:8 | 2 | 1 | 2 | 4 | 3 (1.50x) | 5 (5.00 / 2.50x) | 6 (1.50x) | 1 (0.50x) |"
    )


def test_our_own_run(tmp_path, capsys):
    flags = ["--networks", "12-6-4:8,8-3:4", "--contenders", "distnn 1", "distnn 2"]
    flags += ["--optimizers", "adam", "--rounds", "1", "--seconds", "0.05"]
    compare.main([*flags, "--out", str(tmp_path)])
    figures = json.loads((tmp_path / "figures.json").read_text())
    for ranks in (1, 2):
        for seconds in figures["adam"][f"distnn {ranks}"]:
            assert 1e-6 < seconds < 1
    assert "| 8-3:4 |" in capsys.readouterr().out
