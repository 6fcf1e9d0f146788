"""The one place that checks a value: of a flag, a key of a config file, a keyword, an argument.

Every function raises an `InputError` that names the value, where it was given and what is expected.
"""

import math
import numbers
import operator
import re
from collections.abc import Iterable
from typing import Any

from distnn.errors import InputError

MOST_LISTED = 30  # names in a message; only the options of a training are more
LARGEST_COUNT = 2**31 - 1  # counts travel through C ints in BLAS and MPI
LARGEST_SEED = 2**63 - 1  # the largest whole number that every TOML reader takes
MOST_LAYERS = 1000  # hidden ones


def number(
    value: Any,
    name: str,
    *,
    whole: bool = False,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> Any:
    """A finite number within bounds, as int if `whole`, else as float. numpy's scalars count.

    Args:
        name: of the flag, key or argument, for the message.
        least, most: bounds that are allowed themselves.
        above, below: bounds that are not.
    """
    kind: Any = numbers.Integral if whole else numbers.Real
    # bool is an int to Python, but not what somebody means who gives a number
    if isinstance(value, bool) or not isinstance(value, kind):
        raise InputError(f"{shown(value)} is not a {'whole ' if whole else ''}number", name)
    if not whole and not _is_finite(value):
        raise InputError(f"{shown(value)} is not a finite number", name)
    for bound, words, holds in (
        (least, "at least", operator.ge),
        (above, "above", operator.gt),
        (most, "at most", operator.le),
        (below, "below", operator.lt),
    ):
        if bound is not None and not holds(value, bound):
            raise InputError(f"{shown(value)} must be {words} {bound}", name)
    return int(value) if whole else float(value)


def from_text(text: str, *, whole: bool) -> int | float | str:
    """The number that a text spells in ASCII, for `number` to check; any other text as it is.

    Python itself also reads ``1_0`` and digits of other scripts, which nobody means.
    """
    if text.isascii() and "_" not in text:
        try:
            return int(text) if whole else float(text)
        except ValueError:
            pass
    return text


def choice(value: Any, name: str, known: Iterable[str]) -> str:
    """One of the `known` names."""
    known = list(known)
    if isinstance(value, str) and value in known:
        return value
    raise InputError(f"there is no {shown(value)}", name, nearest(str(value), known))


def instance(value: Any, kind: type, name: str, example: str) -> Any:
    """An object of the class `kind`."""
    if isinstance(value, kind):
        return value
    raise InputError(f"{shown(value)} is not a {kind.__name__}", name, f"give one, as {example}")


def nearest(name: str, known: Iterable[str]) -> str:
    """A remedy that names the known name nearest to `name`, or where all are if none is near.

    Initials count: ``--lr`` finds ``--learning-rate``.
    """
    from difflib import get_close_matches  # only an error needs it

    by_plain = {_plain(one): one for one in known}
    by_initials = {"".join(re.findall(r"\b[a-z]", plain)): by_plain[plain] for plain in by_plain}
    wanted = _plain(name)
    near = [by_plain[plain] for plain in get_close_matches(wanted, by_plain, n=1)]
    if len(wanted) > 1 and wanted in by_initials:
        near = [by_initials[wanted]]
    if near:
        return f"did you mean {near[0]}?"
    if len(by_plain) > MOST_LISTED:
        return "see --help of python -m distnn.train"
    return f"known: {', '.join(by_plain.values())}"


def shown(value: Any) -> str:
    """`value` as text for a message, cut if long."""
    kind: Any = type(value)
    if kind.__repr__ is object.__repr__:
        return f"an object {kind.__name__}"
    if isinstance(value, int) and value.bit_length() > 256:
        return "a number of that size"  # Python refuses to write very large ones
    try:
        text = repr(value) if isinstance(value, str) else str(value)
    except ValueError:  # a list that holds such a number
        text = "a value of that size"
    return text if len(text) <= 60 else text[:57] + "..."


def _plain(name: str) -> str:
    return name.strip("-").replace("_", "-").lower()


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond float64
        return False
