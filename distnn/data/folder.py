"""Opening a table by its path: a file by its ending, or a folder of such files as one table."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from distnn.data.parquet import ParquetTable
from distnn.data.rows import Array
from distnn.data.table import DELIMITERS, CsvTable, Table
from distnn.errors import InputError

CSV = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
ENDINGS = (*CSV, ".parquet")


class Folder(Table):
    """Several files with the same columns, one after the other by name.

    Attributes:
        tables: one for each file.

    Raises:
        InputError: two of them differ in names or order of columns, or in what types they declare.
    """

    def __init__(self, path: Path, tables: Sequence[Table]) -> None:
        self.where, self.tables = str(path), tables
        first = tables[0]
        self.names, self.columns, self.index = first.names, first.columns, first.index
        self.declared = first.declared
        for table in tables[1:]:
            self._check(table)
            pairs = zip(self.declared, table.declared, strict=True)
            self.declared = tuple(kind or other for kind, other in pairs)

    def blocks(self, columns: Sequence[int]) -> Iterator[list[Array]]:
        """See `Table.blocks`."""
        return chain.from_iterable(table.blocks(columns) for table in self.tables)

    def texts(self, column: int) -> Iterator[list[str]]:
        """See `Table.texts`."""
        return chain.from_iterable(table.texts(column) for table in self.tables)

    def place(self, row: int, column: int) -> str:
        """File and place in it. Reads the files up to there."""
        for table in self.tables:
            rows = sum(len(block[0]) for block in table.blocks([column]))
            if row < rows:
                return f"{Path(table.where).name}, {table.place(row, column)}"
            row -= rows
        return self.title(column)

    def _check(self, table: Table) -> None:
        first = self.tables[0]
        remedy = "give all files of a folder the same columns in the same order"
        if table.names != first.names or table.columns != first.columns:
            here, there = (list(t.names or [f"{t.columns} without names"]) for t in (table, first))
            differ = [name for name in here if name not in there] or here
            what = f"has other columns than {Path(first.where).name}: {', '.join(differ)[:200]}"
            raise InputError(what, table.where, remedy)
        for j, (kind, other) in enumerate(zip(table.declared, self.declared, strict=True)):
            if kind and other and kind != other:
                what = f"{table.title(j)} is of {kind}, in files before it of {other}"
                raise InputError(what, table.where, remedy)


def is_table(path: Path) -> bool:
    """Whether a path is a table's by its name, or a folder that holds some."""
    return bool(_tables_in(path)) if path.is_dir() else path.name.lower().endswith(ENDINGS)


def open_table(path: Path, delimiter: str | None = None) -> Table:
    """A table from a file or a folder.

    Args:
        delimiter: of a csv file, by its name; None: see `CsvTable`, and a tab for .tsv.

    Raises:
        InputError: it cannot be read; files of a folder differ.
    """
    if not path.is_dir():
        if path.name.lower().endswith(".parquet"):
            return ParquetTable(path)
        is_tsv = path.name.lower().endswith((".tsv", ".tsv.gz"))
        name = delimiter or ("tab" if is_tsv else None)
        return CsvTable(path, None if name is None else DELIMITERS[name])
    tables = [open_table(file, delimiter) for file in _tables_in(path)]
    return tables[0] if len(tables) == 1 else Folder(path, tables)


def _tables_in(folder: Path) -> list[Path]:
    """Its tables by name, without hidden ones."""
    files = (file for file in folder.iterdir() if not file.name.startswith("."))
    return sorted(file for file in files if file.is_file() and is_table(file))
