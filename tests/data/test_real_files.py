"""What other programs write into tables: indices, headers of numbers, and many types."""

import datetime
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distnn.data.frames import FrameTable, table_of
from distnn.data.options import TableOptions
from distnn.data.rows import fill
from distnn.data.scan import scan
from distnn.data.sources import open_data, open_features, open_test_data, read_texts
from distnn.data.targets import Targets
from distnn.errors import InputError

pa = pytest.importorskip("pyarrow", reason="pip install 'distnn[parquet]'")
pd = pytest.importorskip("pandas", reason="pip install pandas")

FRAME = pd.DataFrame({"a": np.arange(40) / 4, "y": [0, 1] * 20}, index=[*range(40, 0, -1)])


def parquet(path: Path, **columns: Any) -> str:
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table(columns), path)
    return str(path)


def text(path: Path, lines: str) -> str:
    path.write_text(lines)
    return str(path)


def filled(rows: Any) -> np.ndarray:
    out = np.empty((len(rows), 1 + rows.features))
    fill(rows, out)
    return out[:, 1:]


@pytest.mark.parametrize("frame", [FRAME, FRAME.rename_axis("id"), FRAME.reset_index(drop=True)])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_index_is_no_feature_and_no_target(tmp_path: Path, frame: Any, ending: str) -> None:
    path = tmp_path / f"t.{ending}"
    getattr(frame, f"to_{ending}")(path)
    if ending == "csv" and frame.index.name:
        return  # nothing in the file says so
    train = open_data(str(path)).train
    assert (train.feature_names, train.target_names) == (("a",), ("y",))
    assert filled(train.x)[:, 0].tolist() == frame["a"].tolist()
    named = any("numbers or names the rows" in note for note in train.notes)
    assert named == (ending == "csv" or not isinstance(frame.index, pd.RangeIndex))
    if named and ending == "parquet":
        name = frame.index.name or "__index_level_0__"
        assert read_texts(str(path), name) == [str(i) for i in frame.index]
        assert open_data(str(path), target=name).train.y.tolist() == list(frame.index)


@pytest.mark.parametrize("index", [False, True])
def test_a_header_that_counts_columns_is_no_row(tmp_path: Path, index: bool) -> None:
    X = np.arange(12.0).reshape(4, 3) ** 2
    pd.DataFrame(X).to_csv(tmp_path / "t.csv", index=index)
    train = open_data(str(tmp_path / "t.csv"), target="1").train
    assert filled(train.x).tolist() == X[:, [0, 2]].tolist()
    assert train.y.tolist() == X[:, 1].tolist()
    assert train.feature_names == ("0", "2")
    rows = open_features(text(tmp_path / "u.csv", "0,1\n1,0\n"))  # rather two rows than a header
    assert filled(rows).tolist() == [[0, 1], [1, 0]]


def test_labels_of_digits_in_text(tmp_path: Path) -> None:
    labels = [str(i % 40) for i in range(200)]
    path = parquet(tmp_path / "t.parquet", a=list(range(200)), y=labels)
    targets = Targets.deduce(open_data(path).train.y, where="y")
    assert targets.names is not None
    assert [targets.names[k] for k in targets.values] == labels


@pytest.mark.parametrize("last", ["3\t1\n", "3\tx\n"])
def test_delimiters_alone_are_empty_fields_whatever_else_is_there(
    tmp_path: Path, last: str
) -> None:
    path = text(tmp_path / "t.tsv", "a\tb\n1\t0\n\t\n\n" + last)
    with pytest.raises(InputError, match="line 3, column 'b': the target is missing"):
        open_data(path)
    assert read_texts(path, "a") == ["1", "", "3"]
    rows = sum(len(block[0]) for block in table_of_file(path).blocks([0]))
    assert rows == 3


def table_of_file(path: str) -> Any:
    from distnn.data.folder import open_table

    return open_table(Path(path))


def test_identifiers_are_those_of_the_file(tmp_path: Path) -> None:
    large, some = [2**63 + 1, 2**63 + 2], [2**60 + 1, None]
    path = parquet(tmp_path / "t.parquet", a=pa.array(large, pa.uint64()), b=some, c=[0.5, None])
    assert read_texts(path, "a") == [str(value) for value in large]
    assert read_texts(path, "b") == [str(2**60 + 1), ""]
    assert read_texts(path, "c") == ["0.5", ""]


def test_texts_that_are_one_number_are_refused(tmp_path: Path) -> None:
    versions = ["1.1", "1.10", "1.2.3"] * 10
    path = parquet(tmp_path / "t.parquet", v=versions, y=[0, 1] * 15)
    with pytest.raises(InputError, match=r"column 'v': the texts '1.1' and '1.10' are the same"):
        open_data(path)
    with pytest.raises(InputError, match=r"y: the texts '1.1' and '1.10' are the same number"):
        Targets.deduce(np.array(versions, object), where="y")


def test_whole_numbers_beyond_those_of_floats_are_the_same_category_anywhere(
    tmp_path: Path,
) -> None:
    ids = [2**53 + 2 * (i % 3) + 1 for i in range(30)]
    lines = "".join(f"{i},{k % 2}\n" for k, i in enumerate(ids))
    options = TableOptions(categorical="id")
    parts = [
        open_data(path, options=options).train
        for path in (
            text(tmp_path / "t.csv", "id,y\n" + lines),
            parquet(tmp_path / "t.parquet", id=ids, y=[0, 1] * 15),
        )
    ]
    assert parts[0].feature_names == parts[1].feature_names
    assert np.array_equal(*(filled(part.x) for part in parts))


def test_a_folder_of_tables_and_arrays_is_refused(tmp_path: Path) -> None:
    text(tmp_path / "names.csv", "name,n\nshirt,1\n")
    np.save(tmp_path / "x_train.npy", np.ones((3, 2)))
    np.save(tmp_path / "y_train.npy", np.arange(3))
    with pytest.raises(InputError, match="holds tables and arrays"):
        open_data(str(tmp_path))
    (tmp_path / "names.csv").rename(tmp_path / ".names.csv")
    assert len(open_data(str(tmp_path)).train.y) == 3


@pytest.mark.parametrize("window", [0, 2])
@pytest.mark.parametrize("names", [("w", "w_test"), ("w_train", "w_test"), ("w_train",), ("w",)])
def test_weights_are_those_of_their_set(
    tmp_path: Path, window: int, names: tuple[str, ...]
) -> None:
    for name, rows in {"train": 4, "test": 4}.items():
        np.save(tmp_path / f"x_{name}.npy", np.ones((rows, 2)))
        np.save(tmp_path / f"y_{name}.npy", np.arange(rows) % 2)
    for k, name in enumerate(names):
        np.save(tmp_path / f"{name}.npy", np.full(4, 1.0 + k))
    source = open_data(str(tmp_path), options=TableOptions(weight="w"), window=window)
    assert source.test is not None
    if window:
        assert source.train.blocks is not None
        weights = next(source.train.blocks.read(0)).weights
    else:
        weights = source.train.weights
    assert weights is not None
    assert weights.tolist() == [1.0] * 4
    expected = [2.0] * 4 if "w_test" in names else None
    for part in (source.test, open_test_data(str(tmp_path), options=TableOptions(weight="w"))):
        found = None if part.weights is None else part.weights.tolist()
        assert found == expected


def test_a_target_with_text_in_some_rows_is_refused_in_windows_too(tmp_path: Path) -> None:
    prices = [str(i % 30 / 2) for i in range(300)]
    prices[70] = "unknown"
    path = parquet(tmp_path / "t.parquet", a=list(range(300)), y=prices)
    for window in (0, 50):
        with pytest.raises(InputError, match="text 'unknown' in a numeric column"):
            open_data(path, window=window)
    path = parquet(tmp_path / "u.parquet", a=[1.0] * 9, y=[1.0] * 8 + [math.inf])
    for window in (0, 3):
        with pytest.raises(InputError, match=r"row 8 .*column 'y': the value is infinity"):
            open_data(path, window=window)


@pytest.mark.parametrize("kind", [str, object])
def test_an_array_of_text_that_spells_numbers_is_numbers(kind: Any) -> None:
    X = np.array([["1", "x"], ["3", "y"], ["", "x"], ["8", "y"]] * 5, kind)
    found = scan(table_of(X), [0, 1])
    fill, categories = found.preparation.columns[0].fill, found.preparation.columns[1].categories
    assert (fill, categories) == (3.0, ("x", "y"))


def test_types_of_frames_and_partitions(tmp_path: Path) -> None:
    money = FrameTable(pd.DataFrame({"m": [Decimal("1.5"), None, Decimal(2)]}))
    assert next(money.blocks([0]))[0].tolist()[::2] == [1.5, 2.0]
    halves = pd.cut(pd.Series([0.1, 0.9, 0.2, 0.8]), [0, 0.5, 1])
    assert FrameTable(pd.DataFrame({"c": halves})).declared == ("text",)
    zone = pd.to_datetime(["2020-01-01", "2020-01-01"]).tz_localize("UTC")
    for values in (zone, [datetime.date(2020, 1, 1)] * 2, [[1], [2]], pd.to_timedelta([1, 2])):
        with pytest.raises(InputError, match="which is no number or text"):
            scan(FrameTable(pd.DataFrame({"d": values})), [0])
    with pytest.raises(InputError, match="which is no number or text"):
        scan(table_of(np.array([["2020-01-01"]] * 3, "datetime64[D]")), [0])

    parquet(tmp_path / "0.parquet", s=pa.nulls(40), y=[0, 1] * 20)
    parquet(tmp_path / "1.parquet", s=["u", "v"] * 20, y=[0, 1] * 20)
    for files in ((0, 1), (1, 2)):
        train = open_data(str(tmp_path)).train
        assert train.feature_names == ("s=u", "s=v", "s is missing"), files
        (tmp_path / "0.parquet").rename(tmp_path / "2.parquet") if files == (0, 1) else None


def test_booleans_as_other_programs_spell_them(tmp_path: Path) -> None:
    flags = [i % 3 == 0 for i in range(30)]
    for y in (flags, list(range(30))):
        lines = (
            f"{str(flag).lower()},{str(t).lower()}\n" for flag, t in zip(flags, y, strict=True)
        )
        learnt = open_data(text(tmp_path / "t.csv", "b,y\n" + "".join(lines)), target="y").train
        path = parquet(tmp_path / "t.parquet", b=flags, y=y)
        names = learnt.target_names
        other = open_test_data(path, "y", learnt.preparation, names)
        assert np.array_equal(filled(learnt.x), filled(other.x))
    targets = Targets.deduce(np.array([str(flag).lower() for flag in flags], object))
    assert (targets.check(np.array(list(map(str, flags)), object)) == flags).all()


def test_what_messages_of_csv_advise(tmp_path: Path) -> None:
    path = text(tmp_path / "t.csv", 'a,y\n"1,234",1\n"12,345",0\n')
    with pytest.raises(InputError, match="numbers with commas, as '1,234'; write 1234, or"):
        open_data(path)
    (tmp_path / "u.csv").write_text("a,y\n1,2\n", encoding="utf-16")
    with pytest.raises(InputError, match="iconv -f utf-16"):
        open_data(str(tmp_path / "u.csv"))
    rows = filled(open_features(text(tmp_path / "v.CSV", "1,5;2,5\n3,5;4\n")))
    assert rows.tolist() == [[1.5, 2.5], [3.5, 4]]
