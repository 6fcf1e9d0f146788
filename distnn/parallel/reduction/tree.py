"""The tree that fixes the order of every sum over slices, as pure functions.

Floating-point addition is not associative, so the order of a sum is part of its result. With g_k
the gradient of slice k, the batch gradient is T(0, S):

    T(a, b) = g_a                        if b - a = 1
    T(a, b) = T(a, a + m) + T(a + m, b)  m = the largest power of two below b - a

The tree depends on S alone. A *node* of it is written as its pair (a, b). A run of slices, such as
a rank or a machine owns, holds a few whole nodes, its *pieces*; the rest of the tree joins runs.
"""

from collections.abc import Sequence
from typing import NamedTuple

Node = tuple[int, int]


def middle(a: int, b: int) -> int:
    """Where the node (a, b) of two slices or more is split: a + m."""
    return a + (1 << (b - a - 1).bit_length() - 1)


def pieces(lo: int, hi: int, slices: int) -> list[Node]:
    """The largest nodes of T(0, slices) that lie inside the run lo … hi, from left to right.

    There are at most 2·log2(slices) of them, and a single one where each rank has one slice.
    """

    def inside(a: int, b: int) -> list[Node]:
        if hi <= a or b <= lo:
            return []
        if lo <= a and b <= hi:
            return [(a, b)]
        m = middle(a, b)
        return inside(a, m) + inside(m, b)

    return inside(0, slices)


class SliceTask(NamedTuple):
    """What a rank does with one of its slices: compute it into a vector, then add up.

    Vectors are numbered: a run's pieces come first, in order; the numbers after them are spare.
    """

    slice: int
    vector: int
    additions: tuple[tuple[int, int], ...]
    """Pairs (left, right) to be added in this order, once the slice is there: left += right."""


def slice_tasks(lo: int, hi: int, slices: int) -> tuple[list[SliceTask], int]:
    """The work on the run lo … hi, slice after slice, that leaves each piece summed in its vector.

    Returns:
        The tasks, and how many vectors they use (the pieces and the spare ones).
    """
    nodes = pieces(lo, hi, slices)
    tasks: list[SliceTask] = []
    vectors = len(nodes)

    def work(a: int, b: int, vector: int, spare: int) -> None:
        nonlocal vectors
        if b - a == 1:
            tasks.append(SliceTask(a, vector, ()))
            return
        m = middle(a, b)
        vectors = max(vectors, spare + 1)
        work(a, m, vector, spare)
        work(m, b, spare, spare + 1)
        last = tasks[-1]
        tasks[-1] = last._replace(additions=(*last.additions, (vector, spare)))

    for number, (a, b) in enumerate(nodes):
        work(a, b, number, len(nodes))
    return tasks, vectors


class Addition(NamedTuple):
    """One inner node of the tree: register ``out`` = register ``left`` + register ``right``.

    Registers 0 … leaves-1 are the leaves; those after them are scratch.
    """

    left: int
    right: int
    out: int


def additions(node: Node, leaves: Sequence[Node]) -> tuple[list[Addition], int, int]:
    """The additions that evaluate ``node`` from ``leaves``, which must cover it without a gap.

    Returns:
        The additions in order, the register that holds the result, and the number of scratch
        registers used.
    """
    register_of = {leaf: register for register, leaf in enumerate(leaves)}
    steps: list[Addition] = []
    scratch = 0

    def evaluate(a: int, b: int, depth: int) -> int:
        nonlocal scratch
        if (a, b) in register_of:
            return register_of[a, b]
        m = middle(a, b)
        left = evaluate(a, m, depth)
        right = evaluate(m, b, depth + 1)
        out = len(leaves) + depth
        scratch = max(scratch, depth + 1)
        steps.append(Addition(left, right, out))
        return out

    return steps, evaluate(*node, 0), scratch
