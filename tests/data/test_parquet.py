"""Parquet gives what the same table as CSV gives; what cannot be used is named."""

import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distnn.data.rows import fill
from distnn.data.sources import open_data, read_texts
from distnn.errors import InputError

pa = pytest.importorskip("pyarrow", reason="pip install 'distnn[parquet]'")

N = 40
COLUMNS: dict[str, list[Any]] = {
    "whole": list(range(N)),
    "real": [None if i % 8 == 3 else i / 4 for i in range(N)],
    "text": [None if i % 10 == 0 else "ab"[i % 2] for i in range(N)],
    "flag": [i % 3 == 0 for i in range(N)],
    "y": ["no", "yes"] * (N // 2),
}


def write(path: Path, columns: dict[str, Any], rows: int = 7) -> str:
    import pyarrow.parquet as parquet

    parquet.write_table(pa.table(columns), path, row_group_size=rows)
    return str(path)


def filled(path: object) -> tuple[np.ndarray, tuple[str, ...] | None]:
    part = open_data(str(path)).train
    out = np.empty((len(part.x), 1 + part.x.features))
    fill(part.x, out)
    return out[:, 1:], part.feature_names


@pytest.mark.parametrize("batch", [1, 9, 1 << 20])
def test_it_is_what_csv_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr("distnn.data.parquet.BATCH_VALUES", batch)
    lines = [",".join(COLUMNS)]
    for row in zip(*COLUMNS.values(), strict=True):
        lines.append(",".join("" if value is None else str(value) for value in row))
    (tmp_path / "t.csv").write_text("\n".join(lines))
    X, names = filled(tmp_path / "t.csv")
    other, other_names = filled(write(tmp_path / "t.parquet", COLUMNS))
    assert names == other_names
    assert np.array_equal(X, other)
    labels = [open_data(str(tmp_path / f"t.{end}")).train.y.tolist() for end in ("csv", "parquet")]
    assert labels[0] == labels[1] == COLUMNS["y"]
    for name in ("whole", "text"):
        texts = [read_texts(str(tmp_path / f"t.{end}"), name) for end in ("csv", "parquet")]
        assert texts[0] == texts[1]


def test_types(tmp_path: Path) -> None:
    columns = {
        "dictionary": pa.array(COLUMNS["text"]).dictionary_encode(),
        "decimal": pa.array([Decimal("1.50")] * N),
        "small": pa.array(np.arange(N, dtype=np.int8)),
        "half": pa.array(np.arange(N, dtype=np.float16)),
        "large": pa.array(COLUMNS["text"], pa.large_string()),
        "y": COLUMNS["y"],
    }
    X, names = filled(write(tmp_path / "t.parquet", columns))
    assert names == (
        "dictionary=a", "dictionary=b", "dictionary is missing", "decimal", "small", "half",
        "large=a", "large=b", "large is missing",
    )  # fmt: skip
    assert X[3].tolist() == [0, 1, 0, 1.5, 3, 3, 0, 1, 0]


def test_digits_that_are_declared_text_are_categories(tmp_path: Path) -> None:
    columns = {"code": ["1", "2"] * 20, "y": COLUMNS["y"]}
    assert filled(write(tmp_path / "t.parquet", columns))[1] == ("code=1", "code=2")


def test_what_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.parquet", COLUMNS)
    days = pa.array(range(N), pa.timestamp("s"))
    dated = write(tmp_path / "d.parquet", COLUMNS | {"day": days, "y": COLUMNS["y"]})
    with pytest.raises(InputError, match=r"'day' is of type timestamp.*--drop day"):
        open_data(dated, target="y")
    whole = Path(path).read_bytes()
    for content in (whole[:-10], whole[: len(whole) // 2], b"", b"PAR1"):
        (tmp_path / "cut.parquet").write_bytes(content)
        with pytest.raises(InputError, match=r"cut\.parquet: damaged, cut off or no Parquet file"):
            filled(tmp_path / "cut.parquet")
    damaged = bytearray(whole)
    damaged[40:200] = bytes(160)
    (tmp_path / "cut.parquet").write_bytes(damaged)
    with pytest.raises(InputError, match=r"cut\.parquet: damaged"):
        filled(tmp_path / "cut.parquet")
    empty = write(tmp_path / "e.parquet", {"a": pa.array([], pa.int64())})
    with pytest.raises(InputError, match=r"e\.parquet: empty: no rows"):
        open_data(empty)
    gap = COLUMNS | {"y": ["no", None] * (N // 2)}
    with pytest.raises(InputError, match=r"row 1 \(counted from 0\), column 'y': the target is mi"):
        open_data(write(tmp_path / "g.parquet", gap))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r"pyarrow, which is not installed; pip install 'distnn\["):
        open_data(path)


def test_a_folder_with_another_schema(tmp_path: Path) -> None:
    write(tmp_path / "1.parquet", COLUMNS)
    write(tmp_path / "2.parquet", COLUMNS)
    assert len(filled(tmp_path)[0]) == 2 * N
    write(tmp_path / "2.parquet", COLUMNS | {"whole": [str(i) for i in range(N)]})
    expected = r"2\.parquet: column 'whole' is of text, in files before it of number; give all"
    with pytest.raises(InputError, match=expected):
        open_data(str(tmp_path))
