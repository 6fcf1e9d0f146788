"""csv: numbers come back as Python's float() reads them; faults have line and column."""

import csv
import gzip

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distnn.data.options import TableOptions
from distnn.data.rows import fill
from distnn.data.sources import open_data, open_features, open_test_data
from distnn.data.targets import Targets
from distnn.errors import InputError


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def filled(rows):
    out = np.empty((len(rows), 1 + rows.features))
    fill(rows, out)
    return out[:, 1:]


def refused(path, match, **arguments):
    with pytest.raises(InputError, match=match) as caught:
        filled(open_data(str(path), **arguments).train.x)
    assert "\n" not in str(caught.value)
    return str(caught.value)


HOUSES = "area,rooms,price,sold\n50,2,1.5,0\n80.5,3,2.5,1\n120,5,4.0,1\n"


def test_default_target_is_the_last_column(tmp_path):
    source = open_data(write(tmp_path / "houses.csv", HOUSES))
    assert source.train.feature_names == ("area", "rooms", "price")
    assert source.train.target_names == ("sold",)
    assert filled(source.train.x).tolist() == [[50, 2, 1.5], [80.5, 3, 2.5], [120, 5, 4]]
    assert source.train.x.dtype == np.float64
    assert source.train.y.tolist() == [0, 1, 1]
    assert source.train.y.dtype == np.int64
    assert source.test is None
    assert source.train.y_where.endswith("houses.csv, column 'sold'")


def test_targets_by_name(tmp_path):
    path = write(tmp_path / "houses.csv", HOUSES)
    price = open_data(path, target="price")
    assert price.train.y.dtype == np.float64  # 4.0 does not look like an integer
    assert price.train.feature_names == ("area", "rooms", "sold")
    assert filled(price.train.x)[1].tolist() == [80.5, 3, 1]
    assert Targets.deduce(price.train.y).task == "regression"
    several = open_data(path, target="sold, area")
    assert several.train.y.tolist() == [[0, 50], [1, 80.5], [1, 120]]
    assert several.train.feature_names == ("rooms", "price")


def test_without_header_columns_have_numbers(tmp_path):
    path = write(tmp_path / "plain.csv", "1,2,3\n\n4,5,6")
    assert open_data(path).train.y.tolist() == [3, 6]
    assert open_data(path, target="0").train.y.tolist() == [1, 4]
    several = open_data(path, target="2,0")
    assert several.train.y.tolist() == [[3, 1], [6, 4]]
    assert filled(several.train.x).tolist() == [[2], [5]]
    assert open_data(path).train.feature_names is None
    refused(
        path, "no such column '3'; the file has no header: give a number from 0 to 2", target="3"
    )
    refused(path, "no such column 'price'; the file has no header", target="price")
    refused(path, "no such column '00000000099'; the file has no header", target="00000000099")
    refused(path, "no such column '\u0661'", target="\u0661")
    assert open_data(path, target="00000000001").train.y.tolist() == [2, 5]
    refused(path, r"--target: column 1 \(counted from 0\) is given twice", target="1,01")


def test_quotes_marks_and_line_ends(tmp_path):
    text = '\ufeff"a, b",c\r\n"1","2"\r\n \r\n 3 , 4 \r\n'
    source = open_data(write(tmp_path / "d.csv", text))
    assert source.train.feature_names == ("a, b",)
    assert filled(source.train.x).tolist() == [[1], [3]]
    assert open_data(str(tmp_path / "d.csv"), target="a, b").train.y.tolist() == [1, 3]


def test_test_columns_are_found_by_name(tmp_path):
    train = write(tmp_path / "train.csv", HOUSES)
    test = write(tmp_path / "test.csv", "id,sold,price,rooms,area\n7,1,9,8,6\n")
    source = open_data(train, test_path=test)
    assert filled(source.test.x).tolist() == [[6, 8, 9]]
    assert source.test.y.tolist() == [1]
    preparation = source.train.preparation
    part = open_test_data(test, None, preparation, source.train.target_names)
    assert part.feature_names == source.train.feature_names
    rows = open_features(test, 3, preparation)
    assert filled(rows).tolist() == [[6, 8, 9]]
    lacking = write(tmp_path / "lacking.csv", "sold,price,room,area\n1,9,8,6\n")
    refused(train, "lacking.csv: no such column 'rooms'; did you mean 'room'", test_path=lacking)
    plain = write(tmp_path / "plain.csv", "1,2\n")
    refused(train, "1 columns, the training set has 3; give rows", test_path=plain)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "empty file; give at least one row"),
        ("\n \n\n", "empty file"),
        ("a,b\n", "no rows below the header"),
        ("a,b\n1,2\n3\n", "line 3: 1 fields, the first line has 2; give every line"),
        ("a,b\n1,2\n\n3,4,5\n", "line 4: 3 fields, the first line has 2"),
        ("a,b\n1,2\nred,4\n", "line 3, column 'a': text 'red' in a numeric column .*; write a num"),
        ("1,2\n3,red\n", r"line 2, column 1 \(counted from 0\): text 'red'"),
        (
            "a,b\n1,2\n3,\n",
            r"line 3, column 'b': the target is missing \(1 of these 2 rows\); fill",
        ),
        (
            "1,,2\n",
            r"column 1 \(counted from 0\) holds no value at all; leave it out with --drop 1",
        ),
        ("a,b\n1,2\n3,inf\n", "line 3, column 'b': the value is infinity"),
        ("a,b\n1,2\n1e999,4\n", "line 3, column 'a': the value is infinity"),
        ("a,b\n1_0,2\n2,3\n", "line 2, column 'a': text '1_0'"),
        ("a,a\n1,2\n", "two columns are named 'a'; rename"),
        ("a&b\n1&2\n", "1 columns, none is left for the features; separate"),
        ("red,2,0\n1,2,0\n", r"line 1: .* text \('red'\) and numbers \('2', '0'\); give a header"),
        ("1_0,2,0\n1,2,0\n", r"line 1: .* text \('1_0'\) and numbers \('2', '0'\)"),
        ("\na,2\n1,2\n", "line 2: the first line mixes text"),
        ("a,b\n1,2\n\x002,2\n", "line 3, column 'a': text"),
        ("a,b\n\udcff,2\n", "line 2: byte 0xff is not UTF-8.*; save it as UTF-8, as by: iconv"),
        ('a,b\n1,"2\n3,4\n', r"line 2: not a line of csv .*; is a quote not closed"),
        ("a,b\n" + "".join(f"x{i},1\n" for i in range(300)), r"300 different texts .* --drop a"),
        ('a,b\n"1,5",2\n"2,5",3\n', "column 'a' holds numbers with decimal commas, as '1,5'; "),
    ],
)
def test_faults_are_named(tmp_path, text, match):
    (tmp_path / "bad.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    message = refused(tmp_path / "bad.csv", match)
    assert message.startswith(str(tmp_path / "bad.csv"))


def test_a_fault_far_into_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("distnn.data.table.BLOCK_VALUES", 30)
    lines = [f"{i},{i + 1},{i % 3}" for i in range(1000)]
    good = open_data(write(tmp_path / "good.csv", "\n".join(lines)))
    assert (filled(good.train.x)[:, 1] == np.arange(1, 1001)).all()
    assert (good.train.y == np.arange(1000) % 3).all()
    for line, match in {
        "1,2": r"line 701: 2 fields",
        "x,2,1": r"line 701, column 0 .*text 'x'",
        "1,2,-inf": r"line 701, column 2 .*infinity",
    }.items():
        bad = [*lines[:700], line, *lines[701:]]
        refused(write(tmp_path / "bad.csv", "\n".join(bad)), match)
    mixed = [*lines[:700], "1,2,2.5", *lines[701:]]
    y = open_data(write(tmp_path / "mixed.csv", "\n".join(mixed))).train.y
    assert y.dtype == np.float64
    assert y[699:702].tolist() == [0, 2.5, 2]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a;b;c\n1,5;2;x\n2,5;3;y\n", [[1.5, 2], [2.5, 3]]),
        ("a\tb\tc\n1\t2\tx\n2\t3\ty\n", [[1, 2], [2, 3]]),
        ("a|b|c\n1|2|x,z\n2|3|y\n", [[1, 2], [2, 3]]),
        ("height, cm;weight, kg;c\n1;2;x\n2;3;y\n", [[1, 2], [2, 3]]),
        ('a,b,c\n1,2,"x\nz"\n\n2,3,y\n', [[1, 2], [2, 3]]),
        ("a,b,c\r1,2,x\r2,3,y\r", [[1, 2], [2, 3]]),
    ],
)
def test_the_delimiter_is_found(tmp_path, text, rows):
    source = open_data(write(tmp_path / "d.csv", text))
    assert filled(source.train.x).tolist() == rows
    assert [str(label)[0] for label in source.train.y] == ["x", "y"]


def test_the_delimiter_is_given(tmp_path):
    path = write(tmp_path / "d.csv", "a b\n1 2\n3 4\n")
    assert open_data(path, options=TableOptions(delimiter="space")).train.y.tolist() == [2, 4]


@pytest.mark.parametrize("name", ["d.csv.gz", "d.tsv", "d.tsv.gz"])
def test_endings(tmp_path, name):
    text = HOUSES.replace(",", "\t") if "tsv" in name else HOUSES
    opened = gzip.open if name.endswith("gz") else open
    with opened(tmp_path / name, "wt") as file:
        file.write(text)
    assert filled(open_data(str(tmp_path / name)).train.x)[1].tolist() == [80.5, 3, 2.5]
    if name.endswith("gz"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[:-9])
        refused(tmp_path / name, r"d\..*gz: damaged or cut off")


def test_a_folder_of_tables(tmp_path):
    write(tmp_path / "b.csv", HOUSES)
    write(tmp_path / "a.csv", HOUSES.replace("50,2", "51,2"))
    source = open_data(str(tmp_path), target="price")
    assert filled(source.train.x)[:, 0].tolist() == [51, 80.5, 120, 50, 80.5, 120]
    write(tmp_path / "b.csv", HOUSES.replace("\n80.5", "\nlarge"))
    refused(tmp_path, r"b\.csv, line 3, column 'area': text 'large' in a numeric", target="price")
    write(tmp_path / "b.csv", HOUSES.replace("rooms", "room"))
    refused(tmp_path, r"b\.csv: has other columns than a\.csv: room; give all files")


def test_text_in_one_row_only(tmp_path, monkeypatch):
    """The types are known when all rows were seen; the first row with text is named."""
    monkeypatch.setattr("distnn.data.table.BLOCK_VALUES", 60)
    lines = [f"{i},{i % 2}" for i in range(900)]
    lines[800] = "abc,1"
    path = write(tmp_path / "d.csv", "\n".join(["a,y", *lines]))
    message = refused(
        path, r"line 802, column 'a': text 'abc' in a numeric column \(899 numbers, 1"
    )
    assert "--categorical a" in message


def test_no_such_target_names_the_nearest(tmp_path):
    path = write(tmp_path / "houses.csv", HOUSES)
    refused(path, "no such column 'prise'; did you mean 'price'", target="prise")
    refused(path, "no such column 'zzz'; the columns are area, rooms", target="zzz")
    refused(path, "none is left for the features", target="area,rooms,price,sold")


def test_a_target_given_twice(tmp_path):
    path = write(tmp_path / "houses.csv", HOUSES)
    refused(path, "--target: column 'area' is given twice; give each column once",
            target="area, price,area")  # fmt: skip


def test_a_line_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("distnn.data.table.LONGEST_LINE", 1000)
    refused(write(tmp_path / "d.csv", "1," * 1000), "a line of more than 16 MB")


numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)


@settings(deadline=None, max_examples=60)
@given(
    table=st.integers(2, 6).flatmap(
        lambda k: st.lists(st.lists(numbers, min_size=k, max_size=k), min_size=1, max_size=8)
    ),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_tables_come_back(tmp_path_factory, table, quoting):
    path = tmp_path_factory.mktemp("csv") / "d.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file, quoting=quoting).writerows(table)
    source = open_data(str(path))
    assert filled(source.train.x).tolist() == [row[:-1] for row in table]
    assert source.train.y.tolist() == [row[-1] for row in table]


@settings(deadline=None, max_examples=400, suppress_health_check=list(HealthCheck))
@given(
    text=st.binary(max_size=200)
    | st.text('01.,-e+"\n\r \tnaif#_x;\0\ufeff', max_size=60).map(str.encode)
    | st.tuples(st.just(HOUSES.encode()), st.integers(0, 60), st.binary(max_size=3)).map(
        lambda t: t[0][: t[1]] + t[2] + t[0][t[1] + 1 :]
    )
)
def test_any_bytes_are_refused_or_read(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("fuzz") / "d.csv"
    path.write_bytes(text)
    try:
        source = open_data(str(path))
        X = filled(source.train.x)
    except InputError as error:
        if not str(error).startswith(str(path)):
            raise
        return
    assert np.isfinite(X).all()
    if source.train.y.dtype.kind != "O":
        assert np.isfinite(source.train.y).all()
    assert len(X) == len(source.train.y)
