"""One's own table, as a new user has it: trained, measured and predicted, on any ranks."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from launch import mpirun, run_summary, train

KINDS = ("Adelie", "Chinstrap", "Gentoo")


def penguins(path: Path, rows: int = 240) -> Path:
    """Text, numbers, booleans and gaps, with three classes by name."""
    draw = np.random.default_rng(5)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", "island", "bill length", "mass", "ringed", "species"])
        for i in range(rows):
            kind = int(draw.integers(3))
            island = ("Torgersen", "Dream", "Biscoe")[kind if draw.random() < 0.8 else 0]
            bill = "NA" if draw.random() < 0.05 else f"{38 + 5 * kind + draw.normal():.1f}"
            mass = "" if draw.random() < 0.05 else f"{3700 + 600 * kind + 200 * draw.normal():.0f}"
            out.writerow([f"N{i}", island, bill, mass, draw.random() < 0.5, KINDS[kind]])
    return path


def test_from_a_table_to_predictions(tmp_path: Path) -> None:
    data, run = penguins(tmp_path / "penguins.csv"), tmp_path / "r"
    trained = train(
        2, "--data", data, "--target", "species", "--drop", "id", "--epochs", 30, "--run-dir", run
    )
    told = trained.stderr.splitlines()
    gaps = [line for line in told if "missing values are filled in" in line]
    assert len(gaps) == 1
    assert "bill length (" in gaps[0]
    first = "classification, 3 classes (Adelie, Chinstrap, Gentoo), 9 features, 240 rows: 240 train"
    assert sum(first in line for line in told) == 1
    measured = mpirun(2, run, "--data", data, module="distnn.evaluate")
    assert json.loads(measured.stdout)["accuracy"] > 0.95
    output = ("--output", tmp_path / "p.csv", "--id", "id")
    written = mpirun(2, run, "--data", data, *output, module="distnn.predict")
    assert written.stdout.startswith(f"240 rows written to {tmp_path}/p.csv, weights of epoch 30")
    with data.open(newline="") as file, (tmp_path / "p.csv").open(newline="") as predicted:
        pairs = list(zip(csv.DictReader(file), csv.DictReader(predicted), strict=True))
    assert all(row["id"] == one["id"] for row, one in pairs)
    assert np.mean([row["species"] == one["class"] for row, one in pairs]) > 0.95


def test_the_same_hash_from_any_format_on_any_ranks(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pip install 'distnn[parquet]'")
    import pyarrow.csv
    import pyarrow.parquet

    data = penguins(tmp_path / "p.csv")
    options = pyarrow.csv.ConvertOptions(strings_can_be_null=True)
    table = pyarrow.csv.read_csv(data, convert_options=options)
    pyarrow.parquet.write_table(table, tmp_path / "p.parquet", row_group_size=50)
    hashes = set()
    for ranks, ending in ((1, "csv"), (2, "parquet"), (3, "csv"), (3, "parquet")):
        run = tmp_path / f"{ranks}-{ending}"
        train(
            ranks, "--data", tmp_path / f"p.{ending}", "--drop", "id", "--epochs", 2,
            "--slices", 6, "--run-dir", run,
        )  # fmt: skip
        hashes.add(run_summary(run)["weights_sha256"])
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("content", "flags", "expected"),
    [
        (b"a,b\n1,2\nred,3\n4,5\n", (), ["t.csv, line 3, column 'a'", "'red'", "--drop"]),
        (b"a,b\ncaf\xe9,2\n", (), ["t.csv, line 2", "0xe9", "iconv"]),
        (b"a,b\n1,0\n2,1\n3,?\n", (), ["t.csv, line 4, column 'b'", "the target is missing"]),
        (b"a,b\n1,2\n1,3\n2,4\n2,2\n", (), ["--task classification"]),
        (b"a,b\n1,2\n", ("--delimiter", "semicolon"), ["t.csv", "1 columns", "--delimiter"]),
    ],
)
def test_bad_tables_are_told_once(
    tmp_path: Path, content: bytes, flags: tuple[str, ...], expected: list[str]
) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    result = mpirun(4, "--data", tmp_path / "t.csv", *flags)
    assert result.code == 2
    lines = [line for line in result.stderr.splitlines() if line.startswith("distnn.train: ")]
    assert len(lines) == 1, result.stderr
    for words in expected:
        assert words in lines[0]
