"""Tables: named columns of numbers and text, read in blocks of rows. CSV stands here.

Each format is a `Table`; what is done with the columns stands in `distnn.data.preparation`.
"""

import contextlib
import csv
import difflib
import gzip
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count, islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from distnn.data.binary import damage_named
from distnn.data.categories import is_number
from distnn.data.rows import Array, check_unique
from distnn.errors import InputError

BLOCK_VALUES = 1 << 18  # fields of a block: some 20 MB as Python's strings
LONGEST_LINE = 16 << 20
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|", "space": " "}
FOUND = ("\t", ";", "|", ",")
# Fields that stand for no value, in any case of letters, blanks around them left out.
MISSING = frozenset({"", "na", "n/a", "nan", "<na>", "null", "none", "?"})


class Table:
    """A table that is read in passes over its rows.

    Attributes:
        where: the file, for error messages.
        names: one name per column, or None without a header.
        columns: number of columns.
        declared: what the format says of each column: "number", "text", another type that cannot
            be used, or None where the values decide.
        index: columns that number or name the rows, as pandas writes its index into a file: they
            are features or targets only where they are named.
    """

    where: str
    names: tuple[str, ...] | None
    columns: int
    declared: tuple[str | None, ...]
    index: frozenset[int] = frozenset()

    def blocks(self, columns: Sequence[int]) -> Iterator[list[Array]]:
        """Consecutive blocks of rows, each as one array (b,) per column asked for.

        An array holds int64, bool, float64 (NaN: no value), or Python's strings (None: no value).
        A column may have another type in another block.
        """
        raise NotImplementedError

    def texts(self, column: int) -> Iterator[list[str]]:
        """A column of a file as it is written, in blocks; "" where there is no value."""
        raise NotImplementedError

    def place(self, row: int, column: int) -> str:
        """A value's place in words, for error messages."""
        return f"row {row} (counted from 0), {self.title(column)}"

    def title(self, column: int) -> str:
        """A column in words."""
        if self.names is not None:
            return f"column {self.names[column]!r}"
        return f"column {column} (counted from 0)"

    def column(self, name: str) -> int:
        """The index of a column by its name, or without a header by its number from 0."""
        if self.names is not None and name in self.names:
            return self.names.index(name)
        if self.names is None:
            digits = name.lstrip("0") or name[-1:]  # int() refuses thousands of them
            if digits.isascii() and digits.isdecimal() and int(digits[:9]) < self.columns:
                return int(digits)
            remedy = f"the file has no header: give a number from 0 to {self.columns - 1}"
            raise InputError(f"no such column {name[:60]!r}", self.where, remedy)
        near = difflib.get_close_matches(name, self.names, n=1, cutoff=0.5)
        listed = ", ".join(self.names)
        remedy = f"did you mean {near[0]!r}?" if near else f"the columns are {listed[:300]}"
        raise InputError(f"no such column {name[:60]!r}", self.where, remedy)

    def columns_of(self, names: str, flag: str = "--target") -> list[int]:
        """The columns that a flag names: one name, or several different ones joined by commas."""
        if self.names is not None and names in self.names:
            return [self.names.index(names)]
        columns = [self.column(name.strip()) for name in names.split(",")]
        for column in columns:
            if columns.count(column) > 1:
                what = f"{self.title(column)} is given twice"
                raise InputError(what, where=flag, remedy="give each column once")
        return columns


class CsvTable(Table):
    """A csv file, gzipped or not.

    The first line is a header if its fields are names, none of them a number, or are 0, 1, 2, ...,
    as pandas names the columns of an array. A first column without a name is an index. Blank lines
    are skipped. Nothing of the file is kept: each pass reads it again. A field may be quoted and
    then hold delimiters and line ends. In a file separated by semicolons, numbers may have decimal
    commas.

    Args:
        path: the file, in UTF-8.
        delimiter: the character between fields; None: the one of tab, semicolon, bar and comma
            that cuts the first two lines into equally many fields, if there are several into
            numbers, and then into the most fields.

    Raises:
        InputError: it cannot be read, is empty, has names and numbers in its first line, or the
            same name twice.
    """

    def __init__(self, path: Path, delimiter: str | None = None) -> None:
        self.path, self.where = path, str(path)
        self._skip = 0  # lines of the header
        self.delimiter = delimiter or self._found_delimiter()
        number, end, fields = next(self._rows(), (0, 0, []))
        if not fields:
            raise self._error("empty file", remedy="give at least one row")
        self.columns = len(fields)
        self.declared = (None,) * self.columns
        self.names = None
        texts = [field.strip() for field in fields if is_text(self._with_point(field))]
        if texts or _are_counted(fields):
            if texts:
                self._check_header(fields, texts, number)
            self.names = tuple(f.strip() or f"column {j}" for j, f in enumerate(fields))
            self._skip = end
            if self.columns > 1 and not fields[0].strip():
                self.index = frozenset({0})
            check_unique(self.names, "columns", str(path))

    def blocks(self, columns: Sequence[int]) -> Iterator[list[Array]]:
        """See `Table.blocks`."""
        for rows in self._pieces(numbers=True):
            if isinstance(rows, list):
                fields = list(zip(*rows, strict=True))
                yield [typed(fields[j], self.delimiter == ";") for j in columns]
            else:
                yield [rows[j] for j in columns]

    def texts(self, column: int) -> Iterator[list[str]]:
        """See `Table.texts`."""
        for rows in self._pieces(numbers=False):
            assert isinstance(rows, list)
            yield [row[column].strip() for row in rows]

    def place(self, row: int, column: int) -> str:
        """Line and column of a value. Reads the file up to there."""
        start = int(self._skip > 0) + row
        found = next(islice(self._rows(), start, None), None)
        return f"line {found[0] if found else '?'}, {self.title(column)}"

    def _pieces(self, numbers: bool) -> "Iterator[list[list[str]] | dict[int, Array]]":
        """The rows in blocks: as fields, or, if they are plain numbers, as columns of them.

        Args:
            numbers: whether to try; numpy reads them five times as fast.
        """
        size = max(1, BLOCK_VALUES // self.columns)
        with damage_named(self.where), self._open() as file:
            lines = self._lines(file)
            done = len(list(islice(lines, self._skip)))
            while chunk := list(islice(lines, size)):
                found = self._numbers(chunk) if numbers else None
                numbers = found is not None
                if found is not None:
                    yield found
                    done += len(chunk)
                    continue
                rows = self._fields(chain(chunk, lines), done)
                block, end = [], done + len(chunk)
                for first, done, fields in rows:  # the last row may end behind the chunk
                    block.append(self._checked(fields, first))
                    if done >= end:
                        break
                done = max(done, end)
                if block:
                    yield block

    def _numbers(self, lines: list[str]) -> dict[int, Array] | None:
        """Lines as columns of numbers; None if they are anything else."""
        blanks = " \t\r\n".replace(self.delimiter, "")  # delimiters alone are empty fields
        filled = [line for line in lines if line.strip(blanks)]
        if not filled or any('"' in line for line in filled):
            return None
        arguments: dict[str, Any] = {"delimiter": self.delimiter, "comments": None, "ndmin": 2}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # older versions only warn of 1.5 as an integer
                values = np.loadtxt(filled, np.float64, **arguments)
                if values.shape[1] != self.columns:
                    return None
                found = dict(enumerate(values.T))
                whole = [j for j in found if (np.abs(found[j]) < 2**53).all()]
                whole = [j for j in whole if (found[j] == np.trunc(found[j])).all()]
                if not whole:
                    return found
                for columns in (whole, *([j] for j in whole)):  # all at once, or each that can
                    with contextlib.suppress(ValueError, Warning):  # 4.0 does not look like one
                        integers = np.loadtxt(filled, np.int64, usecols=columns, **arguments)
                        found |= dict(zip(columns, integers.T, strict=True))
                        if columns is whole:
                            break
        except (ValueError, OverflowError, Warning):
            return None
        return found

    def _checked(self, fields: list[str], line: int) -> list[str]:
        if len(fields) == self.columns:
            return fields
        how = f"separated by {_named(self.delimiter)}, or say --delimiter"
        raise self._error(
            f"{len(fields)} fields, the first line has {self.columns}",
            f"give every line the same number of fields, {how}",
            line,
        )

    def _rows(self) -> Iterator[tuple[int, int, list[str]]]:
        """As `_fields` from the first line of the file on."""
        with damage_named(self.where), self._open() as file:
            yield from self._fields(self._lines(file), 0)

    def _fields(self, lines: Iterable[str], done: int) -> Iterator[tuple[int, int, list[str]]]:
        """First and last line, from 1, and the fields of each row that is not blank.

        Args:
            done: lines before these.
        """
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
        first = done + 1
        try:
            for fields in reader:
                if len(fields) > 1 or (fields and fields[0].strip()):
                    yield first, done + reader.line_num, fields
                first = done + reader.line_num + 1
        except csv.Error as error:
            what = f"not a line of csv ({error})"
            raise self._error(what, "is a quote not closed? is this a csv file?", first) from error

    def _lines(self, file: IO[str]) -> Iterator[str]:
        for number in count(1):
            line = file.readline(LONGEST_LINE)
            if not line:
                return
            if len(line) == LONGEST_LINE:
                raise self._error("a line of more than 16 MB", remedy="is this a csv file?")
            if not line.isascii():
                self._check_utf8(line, number)
            yield line

    def _check_utf8(self, line: str, number: int) -> None:
        try:
            line.encode()
        except UnicodeEncodeError as error:
            byte = ord(line[error.start]) - 0xDC00
            what = f"byte 0x{byte:02x} is not UTF-8: the file has another encoding"
            is_utf16 = number == 1 and line.encode(errors="surrogateescape")[:1] in b"\xff\xfe"
            encoding = "utf-16" if is_utf16 else "latin1"
            remedy = f"save it as UTF-8, as by: iconv -f {encoding} -t utf-8 OLD > NEW"
            raise self._error(what, remedy, number) from None

    def _check_header(self, fields: list[str], texts: list[str], line: int) -> None:
        """A row with a field that is no number would be lost as a header."""
        numbers = [field.strip() for field in fields if is_number(self._with_point(field))]
        if numbers:
            raise self._error(
                f"the first line mixes text ({_listed(texts)}) and numbers ({_listed(numbers)})",
                "give a header of names only, or a number in every field",
                line,
            )

    def _with_point(self, field: str) -> str:
        return field.replace(",", ".") if self.delimiter == ";" else field

    def _found_delimiter(self) -> str:
        with damage_named(self.where), self._open() as file:
            lines = list(islice((line for line in self._lines(file) if line.strip()), 20))
        fits = {delimiter: _fit(lines, delimiter) for delimiter in FOUND}
        best = max(FOUND, key=lambda delimiter: fits[delimiter])
        return best if fits[best][-1] > 1 else ","

    def _open(self) -> IO[str]:
        # A byte that is no UTF-8 becomes a lone surrogate, and is then named with its line.
        how = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": ""}
        if self.path.suffix.lower() == ".gz":
            return gzip.open(self.path, "rt", **how)  # type: ignore[call-overload]
        return open(self.path, **how)  # type: ignore[call-overload]

    def _error(self, what: str, remedy: str, line: int | None = None) -> InputError:
        where = self.where if line is None else f"{self.where}, line {line}"
        return InputError(what, where=where, remedy=remedy)


def typed(texts: Sequence[str], decimal_comma: bool = False) -> Array:
    """Fields as integers if all are, else as real numbers if all are or are missing, else text."""
    joined = "".join(texts)
    if joined.isascii() and "_" not in joined:  # where Python reads more than anybody means
        for kind, dtype in ((int, np.int64), (float, np.float64)):
            try:
                return np.fromiter(map(kind, texts), dtype, len(texts))
            except (ValueError, OverflowError):
                pass
    stripped = [text.strip() for text in texts]
    present = [text.lower() not in MISSING for text in stripped]
    points = [t.replace(",", ".") for t in stripped] if decimal_comma else stripped
    if all(is_number(t) for t, there in zip(points, present, strict=True) if there):
        there = zip(points, present, strict=True)
        return np.array([float(t) if is_there else np.nan for t, is_there in there])
    found = zip(stripped, present, strict=True)
    return as_objects([t if is_there else None for t, is_there in found])


def as_objects(values: Sequence[object]) -> Array:
    """Python's objects as an array (b,)."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def missing(values: Array) -> Array:
    """Which values of a column are missing, as (b,) bool."""
    if values.dtype.kind == "O":
        return np.fromiter((v is None for v in values), bool, len(values))
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)


def is_text(field: str) -> bool:
    """Whether a field is neither a number nor missing."""
    return field.strip().lower() not in MISSING and not is_number(field)


def _fit(lines: list[str], delimiter: str) -> tuple[bool, bool, int]:
    """Whether the first two rows have equally many fields, whether all are numbers, and how many.

    The second says that 1,5;2,5 has semicolons between numbers with decimal commas.
    """
    try:
        rows = list(islice(csv.reader(lines, delimiter=delimiter), 2))
    except csv.Error:
        rows = []
    if not rows:
        return False, False, 0
    widths, comma = [len(row) for row in rows], delimiter == ";"
    numbers = typed([field for row in rows for field in row], comma).dtype.kind != "O"
    return 1 < widths[0] == widths[-1], numbers, widths[0]


def _are_counted(fields: list[str]) -> bool:
    """Whether fields are 0, 1, 2, ..., perhaps behind an empty one: column names of pandas.

    Two columns without an empty field are rather a row of data, 0 and 1.
    """
    names = [field.strip() for field in fields]
    if names and not names[0]:
        return len(names) > 1 and names[1:] == list(map(str, range(len(names) - 1)))
    return len(names) > 2 and names == list(map(str, range(len(names))))


def _named(delimiter: str) -> str:
    return next(f"{name}s" for name, one in DELIMITERS.items() if one == delimiter)


def _listed(fields: list[str]) -> str:
    """A few fields for a message."""
    more = ", ..." if len(fields) > 3 else ""
    return ", ".join(repr(field[:40]) for field in fields[:3]) + more
