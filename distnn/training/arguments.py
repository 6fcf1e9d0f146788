"""What a caller of the Python interface gives, held against what can be used."""

import math
from typing import Any

import numpy as np

from distnn.errors import InputError


def whole(value: Any, name: str, least: int, most: float = math.inf) -> int:
    """A whole number in a range, or InputError."""
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_whole or not least <= value <= most:
        upto = "on" if most == math.inf else f"to {most}"
        raise InputError(f"{value!r}", name, f"give a whole number from {least} {upto}")
    return int(value)


def positive(value: Any, name: str) -> float:
    """A finite number above 0, or InputError."""
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:
        raise InputError(f"{value!r}", name, "give a number above 0")
    return float(value)


def one_of(names: tuple[str, ...], value: Any, name: str) -> str:
    """One of some names, or InputError."""
    if value not in names:
        raise InputError(f"{value!r} is unknown", name, f"use {', '.join(names)}")
    return value


def instance(kind: type, value: Any, name: str, example: str) -> Any:
    """An object of a class, or InputError."""
    if not isinstance(value, kind):
        raise InputError(f"{_short(value)} is no {kind.__name__}", name, f"give one, as {example}")
    return value


def pair(value: Any, name: str) -> tuple[Any, Any]:
    """A tuple or list of two, or InputError."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise InputError(f"{_short(value)} is no pair", name, "give (rows, targets)")
    return value[0], value[1]


def _short(value: Any) -> str:
    plain = isinstance(value, (str, int, float)) or value is None
    return repr(value) if plain else f"a {type(value).__name__}"
