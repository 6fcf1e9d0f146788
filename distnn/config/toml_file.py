"""Config files: TOML whose keys are the names of the options."""

import json
import os
import stat
from pathlib import Path
from typing import Any

from distnn.checks import nearest
from distnn.config.option import options_of
from distnn.config.options import TrainConfig
from distnn.errors import InputError

LARGEST_CONFIG = 1 << 20  # bytes; a config file has a few hundred
NOT_DATA = "give a TOML config file here, and data with --data"


def read_recorded(path: str | os.PathLike[str]) -> TrainConfig:
    """The options of a recorded run, from its config.toml; raises InputError."""
    values = read_config(path, TrainConfig)
    return TrainConfig(**values, given=frozenset(values))


def read_config(path: str | os.PathLike[str], cls: type) -> dict[str, Any]:
    """The values that a TOML file gives to the options of the dataclass `cls`, checked.

    Raises:
        InputError: the file cannot be read or is damaged; an unknown key; a value of the wrong
            type or out of bounds.
    """
    options = options_of(cls)
    given: dict[str, Any] = {}
    for key, value in _parsed(Path(path)).items():
        if key not in options:
            raise InputError(f"unknown key {key[:60]!a}", str(path), nearest(key, options))
        given[key] = options[key].checked(value, f"{path}: {key}")
    return given


def read_values(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The keys and values of a TOML file as they stand, also those that are no options here.

    Raises:
        InputError: the file cannot be read or is damaged.
    """
    return _parsed(Path(path))


def to_toml(config: TrainConfig) -> str:
    """The text of a run's config.toml: it repeats the run, from any working directory.

    Options without a value are left out, because TOML has no null.
    """
    lines = ["# The options of this run; python -m distnn.train FILE repeats it."]
    for name, value in config.with_full_paths().recorded().items():
        if value is not None:
            # Text, numbers, booleans and lists of whole numbers are written alike in JSON and in
            # TOML, but for DEL, which TOML wants escaped. Python only reads TOML.
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
            lines.append(f"{name} = {text}".replace("\x7f", "\\u007f"))
    return "\n".join(lines) + "\n"


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
