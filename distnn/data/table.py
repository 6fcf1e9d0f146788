"""CSV files: columns of numbers, with or without a header line."""

import csv
import difflib
import warnings
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from distnn.data.binary import damage_named
from distnn.data.rows import Array, Rows, check_finite, check_unique
from distnn.errors import InputError

BLOCK_CHARACTERS = 4 << 20
LONGEST_LINE = 16 << 20


class Table:
    """A csv file: its columns, and its rows in blocks.

    The first line is a header if its fields are names, none of them a number. Blank lines are
    skipped. Nothing of the file is kept: each pass reads it again.

    Attributes:
        path: the file.
        names: one name per column, or None without a header.
        columns: number of columns.

    Raises:
        InputError: it cannot be read, is empty, has names and numbers in its first line, or the
            same name twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._skip = 0  # lines before the first row
        number, line = self._first_line()
        fields = self._split(line, number)
        self.columns = len(fields)
        self.names: tuple[str, ...] | None = None
        texts = [field.strip() for field in fields if field.strip() and not _is_number(field)]
        if texts:
            self._check_header(fields, texts, number)
            self.names = tuple(f.strip() or f"column {j}" for j, f in enumerate(fields))
            self._skip = number
            check_unique(self.names, "columns", str(path))

    def column(self, name: str) -> int:
        """The index of a column by its name, or without a header by its number from 0."""
        if self.names is not None and name in self.names:
            return self.names.index(name)
        if self.names is None:
            digits = name.lstrip("0") or name[-1:]  # int() refuses thousands of them
            if digits.isascii() and digits.isdecimal() and int(digits[:9]) < self.columns:
                return int(digits)
            raise self._error(
                f"no such column {name[:60]!r}",
                remedy=f"the file has no header: give a number from 0 to {self.columns - 1}",
            )
        near = difflib.get_close_matches(name, self.names, n=1, cutoff=0.5)
        listed = ", ".join(self.names)
        raise self._error(
            f"no such column {name[:60]!r}",
            remedy=f"did you mean {near[0]!r}?" if near else f"the columns are {listed[:300]}",
        )

    def columns_of(self, target: str) -> list[int]:
        """The columns of a target: one name, or several different ones joined by commas."""
        if self.names is not None and target in self.names:
            return [self.names.index(target)]
        columns = [self.column(name.strip()) for name in target.split(",")]
        for column in columns:
            if columns.count(column) > 1:
                what = f"{self.title(column)} is given twice"
                raise InputError(what, where="--target", remedy="give each column once")
        return columns

    def title(self, column: int) -> str:
        """A column in words."""
        if self.names is not None:
            return f"column {self.names[column]!r}"
        return f"column {column} (counted from 0)"

    def read(self, columns: Sequence[int]) -> Array:
        """Some columns as an array (n, k): int64 if each field looks like an integer, or float64.

        Raises:
            InputError: no rows; an empty or missing field, text, NaN or infinity.
        """
        parts: list[Array] = []
        integer = True
        for number, lines in self._blocks():
            part = self._parse(number, lines, np.int64, columns) if integer else None
            if part is None:
                integer = False
                part = self._parse(number, lines, np.float64, columns)
                assert part is not None
            parts.append(part)
        if not parts:
            raise self._error("no rows below the header", remedy="give at least one row")
        values = np.concatenate(parts) if integer else np.concatenate(parts, dtype=np.float64)
        check_finite(values, lambda row, j: f"{self.path}, {self.place(row, columns[j])}")
        return values

    def rows(self, columns: Sequence[int], n: int) -> Rows:
        """Some columns as Rows (n, k) of float64; n as ``read`` found it."""
        chosen: Any = list(columns)
        if chosen == list(range(chosen[0], chosen[-1] + 1)):
            chosen = slice(chosen[0], chosen[-1] + 1)  # a view instead of a copy

        def chunks() -> Iterator[Array]:
            seen = 0
            for number, lines in self._blocks():
                block = self._parse(number, lines, np.float64, None)
                assert block is not None
                seen += len(block)
                if seen > n:
                    break
                yield block[:, chosen]
            if seen != n:
                raise self._error("changed while it was read", remedy="start again")

        return Rows(
            (n, len(columns)),
            np.dtype(np.float64),
            chunks,
            str(self.path),
            lambda row, column: self.place(row, columns[column]),
        )

    def place(self, row: int, column: int) -> str:
        """Line and column of a value, for error messages. Reads the file up to there."""
        filled = (
            number
            for first, lines in self._blocks()
            for number, line in enumerate(lines, first)
            if line.strip()
        )
        return f"line {next(islice(filled, row, None), '?')}, {self.title(column)}"

    def _check_header(self, fields: list[str], texts: list[str], line: int) -> None:
        """A row with a field that is no number would be lost as a header."""
        numbers = [field.strip() for field in fields if _is_number(field)]
        if numbers:
            raise self._error(
                f"the first line mixes text ({_listed(texts)}) and numbers ({_listed(numbers)})",
                line=line,
                remedy="give a header of names only, or a number in every field",
            )

    def _open(self) -> IO[str]:
        # A byte that is no UTF-8 becomes a sign that is no number, and is then named with its line.
        return open(self.path, encoding="utf-8-sig", errors="replace")

    def _first_line(self) -> tuple[int, str]:
        with damage_named(str(self.path)), self._open() as file:
            for number in count(1):
                line = self._read_line(file)
                if line.strip():
                    return number, line
                if not line:
                    break
        raise self._error("empty file", remedy="give at least one row")

    def _blocks(self) -> Iterator[tuple[int, list[str]]]:
        """Blocks of lines, none all blank, each with the number of its first line."""
        number = 1
        with damage_named(str(self.path)), self._open() as file:
            for _ in range(self._skip):
                self._read_line(file)
                number += 1
            while lines := self._some_lines(file):
                if any(line.strip() for line in lines):
                    yield number, lines
                number += len(lines)

    def _some_lines(self, file: IO[str]) -> list[str]:
        lines: list[str] = []
        size = 0
        while size < BLOCK_CHARACTERS and (line := self._read_line(file)):
            lines.append(line)
            size += len(line)
        return lines

    def _read_line(self, file: IO[str]) -> str:
        line = file.readline(LONGEST_LINE)
        if len(line) == LONGEST_LINE:
            raise self._error("a line of more than 16 MB", remedy="is this a csv file?")
        return line

    def _parse(
        self, number: int, lines: list[str], dtype: npt.DTypeLike, columns: Sequence[int] | None
    ) -> Array | None:
        """The lines' numbers (b, k); None if integers are asked for and these are not."""
        filled = [line for line in lines if line.strip()]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # older versions only warn of 1.5 as an integer
                values = np.loadtxt(
                    filled,
                    dtype,
                    delimiter=",",
                    comments=None,
                    quotechar='"',
                    ndmin=2,
                    usecols=columns,
                )
        except (ValueError, OverflowError, IndexError, Warning) as error:
            if dtype is np.int64:
                return None
            raise self._fault(number, lines, str(error)) from error
        if columns is None and values.shape[1] != self.columns:
            raise self._fault(number, lines, f"{values.shape[1]} columns instead of {self.columns}")
        return values

    def _fault(self, first: int, lines: list[str], reason: str) -> InputError:
        """The error that names the first bad line and column: the parser's own numbers no line."""
        for number, line in enumerate(lines, first):
            if not line.strip():
                continue
            fields = self._split(line, number)
            if len(fields) != self.columns:
                return self._error(
                    f"{len(fields)} fields, the first line has {self.columns}",
                    line=number,
                    remedy="give every line the same number of fields, separated by commas",
                )
            for column, text in enumerate(fields):
                if not _is_number(text):
                    return self._error(
                        f"text {text.strip()[:40]!r} in a numeric column"
                        if text.strip()
                        else "empty field",
                        line=number,
                        column=column,
                        remedy="write a number (classes are 0, 1, 2, ...), "
                        "or leave this row or column out",
                    )
        last = first + len(lines) - 1
        return self._error(f"lines {first} to {last}: {reason}", remedy="write plain numbers")

    def _split(self, line: str, number: int) -> list[str]:
        try:
            return next(csv.reader([line]))
        except (csv.Error, StopIteration) as error:
            raise self._error(
                f"not a line of csv ({error})", line=number, remedy="is this a csv file?"
            ) from error

    def _error(
        self, what: str, remedy: str, line: int | None = None, column: int | None = None
    ) -> InputError:
        where = str(self.path)
        if line is not None:
            where += f", line {line}"
        if column is not None:
            where += f", {self.title(column)}"
        return InputError(what, where=where, remedy=remedy)


def _is_number(text: str) -> bool:
    """What numpy's parser takes for a number: narrower than Python's float()."""
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and "_" not in text


def _listed(fields: list[str]) -> str:
    """A few fields for a message."""
    more = ", ..." if len(fields) > 3 else ""
    return ", ".join(repr(field[:40]) for field in fields[:3]) + more
