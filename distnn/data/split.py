"""Rows held out for validation: a pure function of (seed, row number), and of the classes."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from distnn.data.rows import Array, Rows
from distnn.errors import InputError

# Keeps these draws apart from those of order, weights and dropout under the same seed.
SPLIT_STREAM = 0x73706C6974  # "split"


def held_out(
    n: int, share: float, seed: int, classes: NDArray[np.integer] | None = None
) -> NDArray[np.bool_]:
    """Which of n rows are held out, about ``share * n`` of them, the same on any ranks.

    Row i has the i-th draw of Philox under (seed, stream) as its key, whatever the other rows are;
    the rows with the smallest keys are held out. With classes, that holds within each class, so
    that each gives its share (rounded by largest remainders) and keeps at least one row.

    Args:
        share: above 0 and below 1.
        classes: (n,) class numbers from 0 on; None where there are none.

    Returns:
        (n,) True for the rows held out: at least one, and not all.

    Raises:
        InputError: there are too few rows to hold one out.
    """
    groups = np.zeros(n, np.intp) if classes is None else classes
    counts = np.bincount(groups, minlength=1)  # (groups,)
    quotas = _quotas(counts, share)
    if not quotas.any():
        what = f"{n} rows are too few to hold out a share of {share:g}"
        raise InputError(what, "validation", "give a larger share, a file, or more rows")
    keys = np.random.Philox(key=np.array([seed, SPLIT_STREAM], np.uint64)).random_raw(n)
    order = np.lexsort((keys, groups))  # by group, then by key
    place = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)  # within the group
    mask = np.empty(n, np.bool_)
    mask[order] = place < np.repeat(quotas, counts)
    return mask


def _quotas(counts: NDArray[np.integer], share: float) -> NDArray[np.integer]:
    """How many rows each group gives: round(share * n) in all, as far as each can keep one."""
    most = np.maximum(counts - 1, 0)
    wanted = share * counts
    quotas = np.minimum(np.floor(wanted).astype(np.intp), most)
    missing = max(1, round(share * int(counts.sum()))) - int(quotas.sum())
    for group in np.argsort(quotas - wanted, kind="stable").tolist():
        if missing <= 0:
            break
        if quotas[group] < most[group]:
            quotas[group] += 1
            missing -= 1
    return quotas


def selected(rows: Rows, keep: NDArray[np.bool_]) -> Rows:
    """Those of the rows for which ``keep`` (n,) is True; read in one pass, as the others are."""
    numbers = np.flatnonzero(keep)

    def chunks():  # type: ignore[no-untyped-def]
        start = 0
        for block in rows.chunks():  # (b, features)
            kept: Array = block[keep[start : start + len(block)]]
            start += len(block)
            if len(kept):
                yield kept

    return replace(
        rows,
        shape=(len(numbers), *rows.shape[1:]),
        chunks=chunks,
        place=lambda row, column: rows.place(int(numbers[row]), column),
    )
