"""The number S of slices that a batch is cut into: the result depends on it, not on the ranks."""

from distnn.errors import InputError

USUAL = 8
"""Slices where none are given: as many ranks give the same result without a flag, and on one rank
they cost little."""


def chosen_slices(slices: int | None, batch_size: int, ranks: int) -> int:
    """S; where it is left open, 8 but no more than a batch has items, or one for each rank."""
    return slices or max(min(USUAL, batch_size), ranks)


def check_slices(slices: int, ranks: int, recorded: bool = False) -> None:
    """InputError if some rank would have no slice; those of a recorded run cannot be changed."""
    if slices < ranks:
        more = f"or {'begin another run with' if recorded else 'use'} --slices {ranks} or more"
        raise InputError(
            f"{ranks} ranks for {slices} slices: a rank needs at least one",
            where="slices",
            remedy=f"start at most {slices} ranks, {more}",
        )


def from_ranks_message(slices: int | None, batch_size: int, ranks: int) -> str:
    """One line if S was left open and comes from the number of ranks, else nothing."""
    if slices or ranks <= min(USUAL, batch_size):
        return ""
    return (
        f"{ranks} slices, one for each rank: the result depends on this number; "
        f"with --slices {ranks} fewer ranks give the same"
    )


def empty_slices_message(size: int, slices: int) -> str:
    """One line if no batch of `size` items has an item for each slice, else nothing."""
    if slices <= size:
        return ""
    return (
        f"{slices} slices for batches of {size}: {slices - size} of each step are empty "
        f"and only cost time; at most {size} slices and ranks, or a larger --batch-size, cost less"
    )
