"""Looking a name up in a table, with an error that helps."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

from distnn.errors import InputError

Entry = TypeVar("Entry")


def look_up(table: Mapping[str, Entry], name: object, where: str) -> Entry:
    """The entry of that name.

    Raises:
        InputError: no such name; the remedy is the nearest known one, or all of them.
    """
    if isinstance(name, str) and name in table:
        return table[name]
    near = difflib.get_close_matches(str(name).replace("_", "-").lower(), table, n=1)
    known = ", ".join(table)
    remedy = f"did you mean {near[0]!r}? known: {known}" if near else f"known: {known}"
    raise InputError(f"there is no {name!r}", where=where, remedy=remedy)
