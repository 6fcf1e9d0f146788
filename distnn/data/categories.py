"""Numbers and text: which is which, and how a category is named."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from distnn.errors import InputError


def is_number(text: str) -> bool:
    """What numpy's parser takes for a number: narrower than Python's float()."""
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and "_" not in text


def numbered(names: Sequence[str]) -> dict[str | None, int]:
    """The number of each category; of booleans in any spelling: formats write True or true."""
    are_booleans = {name.lower() for name in names} <= {"true", "false"}
    index: dict[str | None, int] = {}
    for spelled in (str.lower, str.capitalize, str.upper, str) if are_booleans else (str,):
        index.update((spelled(name), k) for k, name in enumerate(names))
    return index


def check_different(texts: Iterable[str], where: str) -> None:
    """InputError where two different texts are one category, as "1.1" and "1.10" would be."""
    known: dict[str | None, str] = {}
    for text in texts:
        other = known.setdefault(canonical(text), text)
        if other != text:
            what = f"the texts {other[:40]!r} and {text[:40]!r} are the same number"
            raise InputError(what, where, "put a letter before all, or write both alike")


def canonical(value: Any) -> str | None:
    """A category as text, the same from any format: 1, 1.0 and "01" are "1"; None: missing.

    Whole numbers beyond 2**53 are rounded, as they are where a format has floating-point numbers.
    """
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, str) and not (is_number(value) and np.isfinite(float(value))):
        return value
    value = float(value)
    if value != value:
        return None
    return str(int(value)) if value.is_integer() else repr(value)
