"""Numbers and text: which is which, and how a category is named."""

from typing import Any

import numpy as np


def is_number(text: str) -> bool:
    """What numpy's parser takes for a number: narrower than Python's float()."""
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and "_" not in text


def canonical(value: Any) -> str | None:
    """A category as text, the same from any format: 1, 1.0 and "01" are "1"; None: missing."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, str):
        if not is_number(value) or not np.isfinite(float(value)):
            return value
        value = float(value)
    if value != value:
        return None
    return str(int(value)) if float(value).is_integer() else repr(float(value))
