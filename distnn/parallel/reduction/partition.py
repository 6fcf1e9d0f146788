"""Who owns what: closed formulas that every rank evaluates for itself, instead of messages.

One rule cuts everything: part ``k`` of ``parts`` holds the items ``⌊k·n/parts⌋ … ⌊(k+1)·n/parts⌋``.
Nothing is padded, repeated or dropped, whatever divides what; parts differ by one item at most.
"""


def bounds(n: int, parts: int, k: int) -> tuple[int, int]:
    """First and one-past-last item of part ``k`` of ``n`` items cut into ``parts``."""
    return k * n // parts, (k + 1) * n // parts


def slice_rows(k: int, slices: int, items: int) -> tuple[int, int]:
    """Rows of a batch of ``items`` that form slice ``k``; empty where a short batch has too few."""
    return bounds(items, slices, k)


def rank_slices(rank: int, ranks: int, slices: int) -> tuple[int, int]:
    """The contiguous slices that ``rank`` owns: first and one past the last."""
    return bounds(slices, ranks, rank)
