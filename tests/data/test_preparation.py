"""Columns of a table as features: against numpy on whole columns, whatever the blocks."""

import csv
import json
import logging
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distnn.data.options import TableOptions
from distnn.data.part import Part
from distnn.data.preparation import Preparation, canonical
from distnn.data.rows import fill
from distnn.data.scan import Sample
from distnn.data.sources import open_data, open_features, open_test_data
from distnn.errors import InputError

N = 60
PENGUINS = {
    "island": ["Biscoe", "Dream", "Torgersen"] * (N // 3),
    "bill": [f"{30 + i % 7}.5" if i % 9 else "NA" for i in range(N)],
    "mass": [str(3000 + 10 * i) for i in range(N)],
    "sex": [("male", "female", "")[i % 3] for i in range(N)],
    "year": [str(2007 + i % 3) for i in range(N)],
    "species": ["Adelie", "Gentoo"] * (N // 2),
}


def write(path: Path, columns: dict[str, list[str]]) -> str:
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(columns)
        out.writerows(zip(*columns.values(), strict=True))
    return str(path)


def filled(part: Any) -> np.ndarray:
    rows = part.x if isinstance(part, Part) else part
    out = np.empty((len(rows), 1 + rows.features))
    fill(rows, out)
    return out[:, 1:]


@pytest.mark.parametrize("block", [7, 1 << 18])
def test_numbers_categories_and_gaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr("distnn.data.table.BLOCK_VALUES", block)
    train = open_data(write(tmp_path / "p.csv", PENGUINS)).train
    assert train.preparation is not None
    assert train.feature_names == (
        "island=Biscoe", "island=Dream", "island=Torgersen", "bill", "bill is missing", "mass",
        "sex=female", "sex=male", "sex is missing", "year",
    )  # fmt: skip
    bill = np.array([float(v) if v != "NA" else np.nan for v in PENGUINS["bill"]])
    gaps = np.isnan(bill)
    expected = np.column_stack([
        *(np.array(PENGUINS["island"]) == name for name in ("Biscoe", "Dream", "Torgersen")),
        np.where(gaps, np.median(bill[~gaps]), bill), gaps,
        np.array(PENGUINS["mass"], float),
        *(np.array(PENGUINS["sex"]) == name for name in ("female", "male", "")),
        np.array(PENGUINS["year"], float),
    ]).astype(float)  # fmt: skip
    assert np.array_equal(filled(train), expected)
    assert train.preparation.is_scaled.tolist() == [name in ("bill", "mass", "year")
                                                    for name in train.feature_names]  # fmt: skip
    assert train.y.tolist() == PENGUINS["species"]


def test_flags_choose_the_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", PENGUINS)
    chosen = TableOptions(drop="sex, bill,species", categorical="year", weight="mass")
    part = open_data(path, None, "island", chosen).train
    assert part.feature_names == ("year=2007", "year=2008", "year=2009")
    assert part.weights is not None
    assert part.weights.tolist() == [float(v) for v in PENGUINS["mass"]]
    for options, match in {
        TableOptions(drop="isl"): "no such column 'isl'; did you mean 'island'",
        TableOptions(categorical="species"): "--categorical: column 'species' is no feature",
        TableOptions(drop="species"): "--target: column 'species' is the target and",
        TableOptions(weight="bill"): r"line 2, column 'bill': nan is no weight",
        TableOptions(weight="sex"): r"line 2, column 'sex': male is no weight",
        TableOptions(impute=False): r"line 2, column 'bill': the value is missing; .* --missing",
    }.items():
        with pytest.raises(InputError, match=match):
            open_data(path, None, "species", options)


def test_another_file_has_its_columns_by_name_and_is_prepared_alike(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    train = open_data(write(tmp_path / "p.csv", PENGUINS)).train
    other = {"mass": ["4000", "", "5000"], "extra": ["x"] * 3, "year": ["2007"] * 3,
             "sex": ["male", "unknown", "?"], "bill": ["", "1", "2"], "species": ["Adelie"] * 3,
             "island": ["Dream", "Anvers", "Anvers"]}  # fmt: skip
    path = write(tmp_path / "o.csv", other)
    test = open_test_data(path, None, train.preparation, train.target_names)
    X = filled(test)
    assert np.array_equal(X, filled(open_features(path, X.shape[1], train.preparation)))
    bill = np.array([float(v) for v in PENGUINS["bill"] if v != "NA"])
    mass = np.array(PENGUINS["mass"], float)
    assert X.tolist() == [
        [0, 1, 0, np.median(bill), 1, 4000, 0, 1, 0, 2007],
        [0, 0, 0, 1, 0, np.median(mass), 0, 0, 0, 2007],
        [0, 0, 0, 2, 0, 5000, 0, 0, 1, 2007],
    ]
    line = caplog.messages[0]
    assert "2 values of column 'island' are rare or unseen in training (as 'Anvers')" in line
    assert "1 values of column 'sex'" in line
    assert "1 values of column 'mass' are missing, as none was in training" in line
    assert len(caplog.messages) == 2  # one for each pass


def test_rare_categories_have_no_feature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distnn.data.scan.MOST_CATEGORIES", 3)
    draw = np.random.default_rng(0)
    letters = draw.choice(list("abcdefg"), 200, p=[0.3, 0.3, 0.2, 0.1, 0.05, 0.04, 0.01]).tolist()
    path = write(tmp_path / "d.csv", {"letter": letters, "y": ["0", "1"] * 100})
    frequent = sorted(name for name, _ in Counter(letters).most_common(3))
    assert open_data(path).train.feature_names == tuple(f"letter={name}" for name in frequent)


def test_ten_thousand_categories(tmp_path: Path) -> None:
    texts = [f"c{i % 10_000}" for i in range(30_000)]
    texts[:600] = ["often", "more often", "more often"] * 200
    path = write(tmp_path / "d.csv", {"t": texts, "y": ["0", "1"] * 15_000})
    assert open_data(path).train.feature_names == ("t=more often", "t=often")


def test_numbers_that_are_categories_are_the_same_however_they_are_written(tmp_path: Path) -> None:
    zips = ["1", "01", "1.0", "20", "20.50", "20.5"] * 10
    path = write(tmp_path / "d.csv", {"zip": zips, "y": ["0", "1"] * 30})
    part = open_data(path, options=TableOptions(categorical="zip")).train
    assert part.feature_names == ("zip=1", "zip=20", "zip=20.5")
    assert filled(part).sum(axis=0).tolist() == [30, 10, 20]
    assert [canonical(v) for v in (True, 1, 1.0, "1", np.nan, "x")] == ["True", "1", "1", "1", None,
                                                                       "x"]  # fmt: skip


def test_it_comes_back_from_json(tmp_path: Path) -> None:
    preparation = open_data(write(tmp_path / "p.csv", PENGUINS)).train.preparation
    assert preparation is not None
    kept = json.loads(json.dumps(preparation.to_json()))
    assert Preparation.from_json(kept) == preparation


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "code"}, {"fill": "1"}, {"fill": float("nan")}, {"gaps": 1}, {"name": 3},
        {"categories": ["a", 2]}, {"categories": "abc"}, {"categories": ["a"] * 101}, {"more": 1},
        {"kind": "category"},
    ],
)  # fmt: skip
def test_a_forged_one_is_refused(change: dict[str, Any]) -> None:
    column = {"name": "a", "kind": "number", "fill": 1.0, "gaps": True, "categories": []}
    good = {"named": True, "columns": [column]}
    assert Preparation.from_json(good).width == 2
    for bad in (good | {"columns": [column | change]}, good | {"columns": []}, {"named": True},
                good | {"named": 1}, []):  # fmt: skip
        with pytest.raises(InputError, match="preparation: is damaged"):
            Preparation.from_json(bad)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=50)
@given(n=st.integers(1, 400), cuts=st.lists(st.integers(0, 400), max_size=6))
def test_the_median_is_that_of_rows_that_blocks_do_not_change(n: int, cuts: list[int]) -> None:
    values = np.random.default_rng(n).normal(size=n)
    values[::5] = np.nan
    edges = [0, *sorted(min(cut, n) for cut in cuts), n]
    most = 64
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distnn.data.scan.MEDIAN_ROWS", most)
        sample = Sample()
        for a, b in pairwise(edges):
            sample.add(values[a:b], a)
    stride = 1
    while -(-n // stride) > most:
        stride *= 2
    kept = values[::stride]
    expected = np.median(kept[~np.isnan(kept)]) if not np.isnan(kept).all() else 0
    assert sample.median() == expected
