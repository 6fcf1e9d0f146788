"""examples/batch_size_study: a small part of it, stopped and gone on with, and its tables."""

import json
import subprocess
import sys
from pathlib import Path

from launch import ROOT, environment

STUDY = ROOT / "examples" / "batch_size_study"
PART = ("--data", "digits", "--grid", "quick", "--budgets", "epochs", "--batches", "1024")


def python(script: str, *words: object) -> None:
    command = [sys.executable, STUDY / script, *words]
    subprocess.run(list(map(str, command)), check=True, capture_output=True, env=environment())


def test_a_part_of_the_study(tmp_path: Path) -> None:
    lines = tmp_path / "digits-quick.jsonl"
    python("study.py", *PART, "--optimizers", "sgd", "--results", tmp_path)
    first = lines.read_text().splitlines()
    cells = [json.loads(line)["cell"] for line in first]
    assert [cell[6] for cell in cells] == ["search"] * 4 + ["final"]
    best = max(map(json.loads, first[:4]), key=lambda one: one.get("score", [0])[-1])
    assert cells[4][4] == best["cell"][4]  # the rate
    lines.write_text("\n".join(first[:-1]) + "\n")  # stopped before the last one
    python("study.py", *PART, "--optimizers", "sgd", "--results", tmp_path)
    again = lines.read_text().splitlines()
    assert again[:-1] == first[:-1]
    assert json.loads(again[-1])["score"] == json.loads(first[-1])["score"]
    python("draw.py", lines, "--target", "0.8")
    score = json.loads(again[-1])["score"][-1]
    assert f"| sgd | {score:.2%} |" in lines.with_suffix(".md").read_text()
