"""Metrics as lines of JSON, and the summary.

``metrics.jsonl`` holds only what does not depend on ranks, time and stops, so that it is the same
to the last byte for the same training; seconds go to ``timings.jsonl``.
"""

import errno
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from distnn.errors import InputError
from distnn.run.files import flush_directory, reason, without_links, write_text


def append(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Add objects, one a line; they are on the disk when this returns.

    Numbers are written so that reading gives the same bits; one that is not finite (the r2 of
    a constant target) becomes null. Append an epoch's line before its checkpoint is written:
    ``truncate_after`` removes a line too many, but nothing brings back one that is missing.

    Raises:
        OSError: no space, no permission; the file is as it was.
    """
    lines = "".join(map(line, records))
    with open(path, "ab", buffering=0, opener=without_links) as file:
        before = file.tell()
        try:
            if file.write(lines.encode()) < len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(before)  # half a line would damage those that follow
            raise
    if before == 0:
        flush_directory(path.parent)  # the file may be new


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a file, whatever its size; raises InputError as `records`, or for text."""
    return [record for _, record in _checked(path)]


def records(
    path: Path, largest: int | None = None, longest: int = -1
) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """The objects of a file, each after its line's number and bytes; none if there is no file.

    A torn last line is left out: a writer is in the middle of it, or was killed there.

    Args:
        largest: bytes that the file may have; None: any number.
        longest: bytes that a line may have; -1: any number.

    Raises:
        InputError: the file is too large or cannot be read, or another line is not a JSON object,
            or has an epoch that is no whole number.
    """
    try:
        with path.open("rb") as file:
            if largest is not None and os.fstat(file.fileno()).st_size > largest:
                what = f"larger than {largest >> 20} MB"
                raise InputError(what, str(path), "keep fewer lines of it")
            for number, text in enumerate(iter(lambda: file.readline(longest), b""), 1):
                if not text.endswith(b"\n") and len(text) != longest:
                    return
                yield number, text, _object(path, number, text)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"cannot be read: {reason(error)}", str(path)) from None


def line(record: Mapping[str, Any]) -> str:
    """The line of a record, as ``append`` writes it."""
    return json.dumps(plain(record), allow_nan=False) + "\n"


def truncate_after(path: Path, epoch: int, known: Iterable[str] = ()) -> list[str]:
    """Keep the lines of epochs up to `epoch`, byte for byte, as a resumed run needs them.

    Args:
        known: lines, of which those are added that the file has not.

    Returns:
        The lines that the file now holds.

    Raises:
        InputError: the file is damaged, or cannot be read or written.
    """
    found = [(record.get("epoch", 0), text.decode()) for text, record in _checked(path)]
    there = {number for number, _ in found}
    added = [(json.loads(text)["epoch"], text) for text in known]
    found += [(number, text) for number, text in added if number not in there]
    kept = [text for number, text in sorted(found, key=lambda one: one[0]) if number <= epoch]
    if not kept and not path.exists():
        return []
    try:
        write_text(path, "".join(kept))
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", str(path)) from None
    return kept


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Write ``summary.json``, whole or not at all; numbers as in ``append``. Raises OSError."""
    write_text(path, json.dumps(plain(summary), indent=2, allow_nan=False) + "\n")


def _checked(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The lines of a file and their records."""
    for number, text, record in records(path):
        if not is_record(record):
            raise _damaged(path, number)
        yield text, record


def _object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or type(record.get("epoch", 0)) is not int:
        raise _damaged(path, number)
    return record


def _damaged(path: Path, number: int) -> InputError:
    what = f"line {number} is not one that distnn writes"
    return InputError(what, str(path), "remove the line, or move the file away")


def is_record(value: Any) -> bool:
    """Whether a value of JSON is an object of numbers, of which the epoch is a whole one."""
    if not isinstance(value, dict) or type(value.get("epoch", 0)) is not int:
        return False
    return all(type(one) in (int, float, type(None)) for one in value.values())


def plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """numpy's scalars as Python's; a number that is not finite as None; within lists, too."""
    return {key: _plain_value(value) for key, value in record.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return plain(value)
    if isinstance(value, list):
        return [_plain_value(one) for one in value]
    value = value.item() if hasattr(value, "item") else value
    is_lost = isinstance(value, float) and not math.isfinite(value)
    return None if is_lost else value
