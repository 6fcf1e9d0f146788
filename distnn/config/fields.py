"""A setting: one field of a dataclass that is a flag of a command and a key of its config file.

What may be given for a setting stands in the field's metadata (``setting``), and ``checked`` holds
a value from either place against it, so that flag and key accept and refuse the same things.
"""

import dataclasses
import difflib
import math
import numbers
import re
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Any, NamedTuple, get_args, get_type_hints

from distnn.errors import InputError

LARGEST = 2**31 - 1  # counts travel through C ints in BLAS and MPI


class Rule(NamedTuple):
    """What a setting accepts, besides its type.

    Attributes:
        help: one short line for ``--help``.
        least, most: smallest and largest number allowed, bounds included.
        above, below: as ``least`` and ``most``, bounds excluded.
        choices: the names allowed.
        pattern: a regular expression the text must match; `expects` says it in words.
        positional: the setting is the command's positional argument.
    """

    help: str
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    expects: str = ""
    positional: bool = False

    def bounds(self, number: float) -> str:
        """What `number` breaks of the bounds, as ``at least 1``; empty if it keeps them."""
        if self.least is not None and number < self.least:
            return f"at least {self.least:g}"
        if self.above is not None and number <= self.above:
            return f"above {self.above:g}"
        if self.most is not None and number > self.most:
            return f"at most {self.most}"
        if self.below is not None and number >= self.below:
            return f"below {self.below:g}"
        return ""


def setting(default: Any, help: str, **rule: Any) -> Any:
    """A dataclass field with a `default` and the `Rule` it is held against."""
    metadata = {"rule": Rule(help, **rule)}
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Setting(NamedTuple):
    """One setting as the parsers see it: ``name`` with underscores, `type` without ``| None``."""

    name: str
    type: Any
    optional: bool
    default: Any
    rule: Rule

    @property
    def flag(self) -> str:
        """The setting's name on a command line."""
        return "--" + self.name.replace("_", "-")


def settings_of(cls: type) -> Mapping[str, Setting]:
    """The settings of a dataclass by name, in the order they are declared."""
    hints = get_type_hints(cls)
    found: dict[str, Setting] = {}
    for field in dataclasses.fields(cls):
        if "rule" not in field.metadata:
            continue
        kind, optional = hints[field.name], False
        if isinstance(kind, UnionType):
            kind, optional = get_args(kind)[0], True
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        found[field.name] = Setting(field.name, kind, optional, default, field.metadata["rule"])
    return found


def nearest(name: str, known: Iterable[str]) -> str:
    """A remedy that names the known name nearest to `name`, or all if none is near."""
    known = list(known)
    initials = {"".join(word[0] for word in re.findall("[a-z]+", one)): one for one in known}
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    if len(short := name.strip("-").lower()) > 1 and short in initials:
        near = [initials[short]]  # --lr
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"


def checked(setting: Setting, value: Any, where: str) -> Any:
    """`value` as the setting's type, or an InputError that names `where`, value and expectation."""
    if isinstance(value, str) and setting.rule.choices:
        return _choice(setting, value, where)
    if setting.type is str:
        return _text(setting.rule, value, where)
    if setting.type is bool:
        if not isinstance(value, bool):
            raise InputError(f"{shown(value)} is not true or false", where)
        return value
    if setting.type == list[int]:
        if not isinstance(value, list):
            raise InputError(f"{shown(value)} is not a list of whole numbers", where)
        return [_number(setting, item, where, whole=True) for item in value]
    return _number(setting, value, where, whole=setting.type is int)


def from_text(setting: Setting, text: str) -> Any:
    """What a flag's `text` means for a setting (an item of it, for a list), not yet held to it.

    Text that is no number stays text, for `checked` to refuse by name.
    """
    if setting.type is str:
        return text
    try:
        return float(text) if setting.type is float else int(text)
    except ValueError:
        return text


def shown(value: Any) -> str:
    """`value` as text for a message: on one line, cut if long."""
    if isinstance(value, int) and value.bit_length() > 256:
        return "a number of that size"  # str() of it may raise
    try:
        text = repr(value) if isinstance(value, str) else str(value)
    except ValueError:  # a list that holds such a number
        text = "a value of that size"
    return text if len(text) <= 60 else text[:57] + "..."


def _choice(setting: Setting, value: str, where: str) -> str:
    if value in setting.rule.choices:
        return value
    raise InputError(f"there is no {shown(value)}", where, nearest(value, setting.rule.choices))


def _text(rule: Rule, value: Any, where: str) -> str:
    if rule.pattern and isinstance(value, int):
        value = shown(value)  # the 1 of an interval may stand without quotes
    if not isinstance(value, str):
        raise InputError(f"{shown(value)} is not text", where, "put it in quotes")
    if not value or "\0" in value:
        raise InputError("the text is empty or holds a zero byte", where)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(f"{value!a} is not UTF-8 text", where) from None
    if rule.pattern and not re.fullmatch(rule.pattern, value, re.ASCII):
        raise InputError(f"{shown(value)} cannot be used", where, f"give {rule.expects}")
    return value


def _number(setting: Setting, value: Any, where: str, whole: bool) -> int | float:
    kind = numbers.Integral if whole else numbers.Real  # numpy's scalars count
    right_type = isinstance(value, kind) and not isinstance(value, bool)
    if not right_type:
        raise InputError(f"{shown(value)} is not a {'whole ' if whole else ''}number", where)
    if not whole and not _is_finite(value):
        raise InputError(f"{shown(value)} is not a finite number", where)
    broken = setting.rule.bounds(value)
    if broken:
        raise InputError(f"{shown(value)} must be {broken}", where)
    return int(value) if whole else float(value)


def _is_finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond float64
        return False
