"""Parquet files, by pyarrow (the extra ``parquet``), read by row groups."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from distnn.data.rows import Array, check_unique
from distnn.data.table import Table, as_objects
from distnn.errors import InputError

BATCH_VALUES = 1 << 20
GROUP_VALUES = 1 << 18  # of a batch of one row group: it stays in a cache
BUFFER = 1 << 16  # bytes read at a time; else all of a row group's columns are, before any row
INSTALL = "pip install 'distnn[parquet]'"


class ParquetTable(Table):
    """A Parquet file; of its rows, one batch at a time is in memory.

    Attributes:
        groups: rows of each row group.

    Raises:
        InputError: pyarrow is not installed; the file is damaged or holds no rows.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.where = path, str(path)
        with self._opened() as file:
            schema = file.schema_arrow
            self.names: tuple[str, ...] = tuple(schema.names)
            self.declared = tuple(kind_of(schema.field(j).type) for j in range(len(schema)))
            kept = (schema.pandas_metadata or {}).get("index_columns", ())  # a range is a dict
            self.index = frozenset(j for j, name in enumerate(schema.names) if name in kept)
            meta = file.metadata
            rows = meta.num_rows
            self.groups = [meta.row_group(k).num_rows for k in range(meta.num_row_groups)]
        self.columns = len(self.names)
        if rows == 0 or self.columns == 0:
            raise InputError("empty: no rows or no columns", self.where, "give at least one row")
        check_unique(self.names, "columns", self.where)

    def blocks(self, columns: Sequence[int]) -> Iterator[list[Array]]:
        """See `Table.blocks`."""
        size = max(1, BATCH_VALUES // max(1, len(columns)))
        with self._opened() as file:
            yield from self._batches(file, columns, batch_size=size)

    def group(self, number: int, columns: Sequence[int]) -> Iterator[list[Array]]:
        """A row group, as `blocks` has it; no thread of pyarrow's takes part.

        Raises:
            InputError: it is damaged, or has another number of rows than when it was opened.
        """
        size, rows = max(1, GROUP_VALUES // max(1, len(columns))), 0
        where = f"{self.where}, row group {number}"
        with self._opened(where) as file:
            if number < file.num_row_groups:
                how = {"batch_size": size, "row_groups": [number], "use_threads": False}
                for block in self._batches(file, columns, **how):
                    rows += len(block[0])
                    yield block
        if rows != self.groups[number]:
            raise InputError("changed while it was read", where, "start again")

    def texts(self, column: int) -> Iterator[list[str]]:
        """See `Table.texts`; whole numbers of any size stay what they are."""
        name = self.names[column]
        with self._opened() as file:
            for batch in file.iter_batches(columns=[name]):
                values = batch.column(name).to_pylist()
                yield ["" if v is None or v != v else str(v) for v in values]

    def _batches(self, file: Any, columns: Sequence[int], **how: Any) -> Iterator[list[Array]]:
        names = [self.names[j] for j in columns]
        for batch in file.iter_batches(columns=list(dict.fromkeys(names)), **how):
            yield [from_arrow(batch.column(name), self.declared[j])
                   for name, j in zip(names, columns, strict=True)]  # fmt: skip

    @contextmanager
    def _opened(self, where: str | None = None) -> Iterator[Any]:
        try:
            import pyarrow as pa
            import pyarrow.parquet as parquet
        except ImportError:
            what = "Parquet needs pyarrow, which is not installed"
            raise InputError(what, self.where, INSTALL) from None
        try:
            with parquet.ParquetFile(self.path, buffer_size=BUFFER, pre_buffer=False) as file:
                yield file
        except (pa.ArrowException, OSError, KeyError) as error:  # KeyError: a column is gone
            what = f"damaged, cut off or no Parquet file ({error})"
            place = where or self.where
            raise InputError(what[:300], place, "copy or make the file again") from error
        finally:
            pa.default_memory_pool().release_unused()  # some 50 MB, on every rank that reads


def kind_of(type: Any) -> str | None:
    """An Arrow type as `Table.declared` has it."""
    import pyarrow.types as types

    if types.is_dictionary(type):
        type = type.value_type
    if types.is_null(type):  # no value at all, for example in one file of several
        return None
    if types.is_integer(type) or types.is_floating(type) or types.is_decimal(type):
        return "number"
    if types.is_boolean(type) or str(type) in ("string", "large_string", "string_view"):
        return "text"
    return str(type)


def from_arrow(array: Any, declared: str | None) -> Array:
    """One column of a batch as `Table.blocks` has it."""
    import pyarrow as pa

    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if declared == "text":
        values = array.to_pylist()
        return as_objects([None if v is None else str(v) for v in values])
    if declared != "number":
        return as_objects(array.to_pylist())
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.float64())
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype.kind in "iu" and values.dtype != np.uint64:
        return values.astype(np.int64)
    return values.astype(np.float64)
