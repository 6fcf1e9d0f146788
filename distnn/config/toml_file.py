"""Config files: TOML whose keys are the names of the settings."""

import json
import stat
from pathlib import Path
from typing import Any

from distnn.config.fields import checked, nearest, settings_of
from distnn.errors import InputError

LARGEST_CONFIG = 1 << 20  # bytes; a settings file has a few hundred
NOT_DATA = "give a TOML config file here, and data with --data"


def read_config(path: str | Path, cls: type) -> dict[str, Any]:
    """The values that a TOML file gives to the settings of the dataclass `cls`, checked.

    Raises:
        InputError: the file cannot be read or is damaged; an unknown key; a value of the wrong
            type or out of bounds.
    """
    settings = {name: one for name, one in settings_of(cls).items() if not one.rule.positional}
    given: dict[str, Any] = {}
    for key, value in _parsed(Path(path)).items():
        if key not in settings:
            raise InputError(f"unknown key {key[:60]!a}", str(path), nearest(key, settings))
        given[key] = checked(settings[key], value, f"{path}: {key}")
    return given


def write_config(settings: Any, leave_out: frozenset[str], heading: str) -> str:
    """The settings as TOML text; keys without a value are left out, for TOML has no null."""
    lines = [f"# {heading}"]
    for name in settings_of(type(settings)):
        value = getattr(settings, name)
        if value is not None and name not in leave_out:
            lines.append(f"{name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    # The values are text, numbers, booleans and lists of whole numbers, whose JSON form is TOML,
    # but for DEL, which TOML wants escaped: a library that writes TOML would save this one line.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")


def _parsed(path: Path) -> dict[str, Any]:
    import tomllib  # by the one rank that reads

    text = _text(path)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what = _located(str(error), last=text.rstrip().count("\n") + 1)
        remedy = "it must be TOML" if path.suffix == ".toml" else NOT_DATA
        raise InputError(f"damaged: {what}", str(path), remedy) from None
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits; 1,000 nested lists
        raise InputError(f"damaged: {str(error)[:80]}", str(path), "it must be TOML") from None


def _located(message: str, last: int) -> str:
    """tomllib's ``what (at line 3, column 4)`` with the line in front."""
    what, _, place = message.rpartition(" (at ")
    place = place.rstrip(")").replace("end of document", f"line {last}")
    return f"{place}: {what}" if what else message


def _text(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError("not a file", str(path), "give a TOML config file")
        with path.open("rb") as file:
            content = file.read(LARGEST_CONFIG + 1)
    except FileNotFoundError:
        remedy = "give the path of a TOML file" if path.suffix == ".toml" else NOT_DATA
        raise InputError("no such config file", str(path), remedy) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot be read: {reason}", str(path)) from None
    if len(content) > LARGEST_CONFIG:
        raise InputError("larger than 1 MB", str(path), "give a TOML config file")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"damaged: line {line}: not UTF-8 text", str(path)) from None
