"""An option: one field of a dataclass that is a flag, a key of the config file and a keyword."""

import dataclasses
import os
import re
from collections.abc import Mapping
from functools import cache
from types import UnionType
from typing import Any, Literal, NamedTuple, get_args, get_type_hints

from distnn import checks
from distnn.errors import InputError

# What a resumed run does with an option that is given again. fixed: it must be what was recorded.
# free: it may change. grows: it may become larger. unrecorded: each start has its own.
OnResume = Literal["fixed", "free", "grows", "unrecorded"]


AUTO = "auto"


class Option(NamedTuple):
    """One row of the table.

    Attributes:
        default: None if it is chosen later, from the data or the ranks; "" if it must be given.
        group: the heading of ``--help`` it stands under.
        help: one short line.
        least, most, above, below: bounds, as `checks.number` takes them.
        choices: the names allowed.
        pattern: a regular expression that the text must match; `expects` describes it.
        auto: the word "auto" stands for None.
        positional: it is given without a flag, as ``RUN_DIR``.
        is_path: of a file, which is recorded in full.
        on_resume: see `OnResume`.
        trainer: it is a keyword of `Trainer`, too.
        name: the field's, with underscores.
        type: str, int, float, bool, list[int], or list[str] of what is given without a flag.
        optional: None is allowed.
    """

    default: Any
    group: str
    help: str
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    expects: str = ""
    auto: bool = False
    positional: bool = False
    is_path: bool = False
    on_resume: OnResume = "fixed"
    trainer: bool = False
    name: str = ""
    type: Any = str
    optional: bool = False

    @property
    def flag(self) -> str:
        """The name on a command line."""
        return self.name.upper() if self.positional else "--" + self.name.replace("_", "-")

    @property
    def range(self) -> str:
        """The values allowed, in words; empty if the type says it all."""
        if self.choices:
            return ", ".join(self.choices)
        low = f"above {self.above}" if self.above is not None else self.least
        high = f"below {self.below}" if self.below is not None else self.most
        if low is None:
            return ""
        if high is None:
            return str(low) if self.least is None else f"at least {low}"
        return f"{'auto, ' if self.auto else ''}{low} to {high}"

    def checked(self, value: Any, where: str) -> Any:
        """`value` as the option's type; an InputError names `where`, value and expectation."""
        if self.auto and isinstance(value, str) and value == AUTO:
            return None
        if value is None and self.optional:
            return None
        if self.choices:
            return checks.choice(value, where, self.choices)
        if self.type is str:
            return self._checked_text(value, where)
        if self.type is bool:
            if not isinstance(value, bool):
                raise InputError(f"{checks.shown(value)} is not true or false", where)
            return value
        if self.type == list[str]:
            return [self._checked_text(item, where) for item in value]
        if self.type != list[int]:
            return self._checked_number(value, where)
        if not isinstance(value, list):
            raise InputError(f"{checks.shown(value)} is not a list of whole numbers", where)
        if len(value) > checks.MOST_LAYERS:
            raise InputError(f"{len(value)} numbers", where, f"give at most {checks.MOST_LAYERS}")
        return [self._checked_number(item, where) for item in value]

    def from_words(self, words: list[str]) -> Any:
        """The value of a flag from the words that follow it, or for a bool from the flag itself.

        Raises:
            InputError: not a value of this option.
        """
        if not words and self.type != list[int]:
            raise InputError("needs a value", self.flag, "see --help")
        if self.type is bool:
            return not words[0].startswith("--no-")
        if self.type is str:
            return self.checked(words[0], self.flag)
        if self.auto and words == [AUTO]:
            return None
        if self.type == list[str]:
            return self.checked(words, self.flag)
        whole = self.type is not float
        if self.type == list[int] and len(words) == 1 and re.fullmatch(r"\d+(,\d+)+", words[0]):
            remedy = f"write {self.flag} {words[0].replace(',', ' ')}"
            raise InputError(f"{checks.shown(words[0])} is not a whole number", self.flag, remedy)
        values = [checks.from_text(word, whole=whole) for word in words]
        return self.checked(values if self.type == list[int] else values[0], self.flag)

    def _checked_number(self, value: Any, where: str) -> Any:
        return checks.number(
            value, where, whole=self.type is not float,
            least=self.least, above=self.above, most=self.most, below=self.below,
        )  # fmt: skip

    def _checked_text(self, value: Any, where: str) -> str:
        if (self.is_path and isinstance(value, float)) or (self.pattern and isinstance(value, int)):
            value = checks.shown(value)  # the 1 of an interval may stand without quotes
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if not isinstance(value, str):
            raise InputError(f"{checks.shown(value)} is not text", where, "put it in quotes")
        if not value or "\0" in value:
            raise InputError("the text is empty or holds a zero byte", where)
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InputError(f"{value!a} is not UTF-8 text", where) from None
        if self.pattern and not re.fullmatch(self.pattern, value, re.ASCII):
            raise InputError(f"{checks.shown(value)} cannot be used", where, f"give {self.expects}")
        return value


def option(default: Any, group: str, help: str, **rule: Any) -> Any:
    """A field of a dataclass: one row of the table, see `Option`."""
    metadata = {"option": Option(default, group, help, **rule)}
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


_hints = cache(get_type_hints)


def options_of(cls: type) -> Mapping[str, Option]:
    """The options of a dataclass by name, in the order they are declared."""
    hints = _hints(cls)
    found: dict[str, Option] = {}
    for field in dataclasses.fields(cls):
        if "option" in field.metadata:
            kind = hints[field.name]
            optional = isinstance(kind, UnionType)  # as int | None
            found[field.name] = field.metadata["option"]._replace(
                name=field.name, type=get_args(kind)[0] if optional else kind, optional=optional
            )
    return found
