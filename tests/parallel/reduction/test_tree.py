"""The tree as pure functions, against a direct evaluation of its definition."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn.parallel.reduction import tree
from distnn.parallel.reduction.partition import rank_slices

LARGEST = 64

Term = int
terms: dict[tuple[Term, Term], Term] = {}


def plus(left: Term, right: Term) -> Term:
    """A sum as a number of its own: equal only for the same summands in the same order."""
    return terms.setdefault((left, right), 1000 + len(terms))


def definition(a: int, b: int) -> Term:
    """T(a, b), word for word; slice k is the term k."""
    if b - a == 1:
        return a
    m = 1
    while 2 * m < b - a:
        m *= 2
    return plus(definition(a, a + m), definition(a + m, b))


def summed_by_a_rank(lo: int, hi: int, slices: int) -> dict[tree.Node, Term]:
    """What a rank's tasks leave in its vectors, by the piece that each stands for."""
    tasks, count = tree.slice_tasks(lo, hi, slices)
    vectors: list[Term | None] = [None] * count
    for task in tasks:
        vectors[task.vector] = task.slice
        for left, right in task.additions:
            x, y = vectors[left], vectors[right]
            assert x is not None
            assert y is not None
            vectors[left], vectors[right] = plus(x, y), None
    pieces = tree.pieces(lo, hi, slices)
    assert [task.slice for task in tasks] == list(range(lo, hi))
    assert vectors[len(pieces) :] == [None] * (count - len(pieces))  # no spare one is forgotten
    return {piece: term for piece, term in zip(pieces, vectors, strict=False) if term is not None}


def evaluated(node: tree.Node, leaves: dict[tree.Node, Term]) -> Term:
    steps, result, scratch = tree.additions(node, list(leaves))
    registers: list[Term] = [*leaves.values(), *[-1] * scratch]
    for left, right, out in steps:
        assert out >= len(leaves)  # leaves stay as they are
        registers[out] = plus(registers[left], registers[right])
    return registers[result]


def joined(parts: Sequence[dict[tree.Node, Term]]) -> dict[tree.Node, Term]:
    return {node: term for part in parts for node, term in part.items()}


@pytest.mark.parametrize("slices", range(1, LARGEST + 1))
def test_any_number_of_ranks_evaluates_the_definition(slices: int) -> None:
    expected = definition(0, slices)
    for ranks in range(1, slices + 1):
        runs = [rank_slices(rank, ranks, slices) for rank in range(ranks)]
        sums = [summed_by_a_rank(lo, hi, slices) for lo, hi in runs]
        for part in sums:
            assert part == {(a, b): definition(a, b) for a, b in part}
        assert evaluated((0, slices), joined(sums)) == expected, ranks


@pytest.mark.parametrize("slices", [*range(1, 20), 31, 32, 33, 63, 64])
def test_any_cut_into_nodes_evaluates_the_definition(slices: int) -> None:
    for ranks in range(1, slices + 1):
        for node_size in (2, 3, 5):
            starts = list(range(0, ranks, node_size))
            nodes = []
            for first in starts:
                last = min(first + node_size, ranks)
                runs = [rank_slices(rank, ranks, slices) for rank in range(first, last)]
                sums = joined([summed_by_a_rank(lo, hi, slices) for lo, hi in runs])
                whole = tree.pieces(runs[0][0], runs[-1][1], slices)
                nodes.append(
                    {
                        (a, b): evaluated(
                            (a, b), {k: v for k, v in sums.items() if a <= k[0] and k[1] <= b}
                        )
                        for a, b in whole
                    }
                )
            assert evaluated((0, slices), joined(nodes)) == definition(0, slices)


@given(st.data())
def test_pieces_are_few_and_leave_no_gap(data: st.DataObject) -> None:
    slices = data.draw(st.integers(1, 5000))
    lo = data.draw(st.integers(0, slices - 1))
    hi = data.draw(st.integers(lo + 1, slices))
    pieces = tree.pieces(lo, hi, slices)
    assert [piece[0] for piece in pieces] == [lo, *(piece[1] for piece in pieces[:-1])]
    assert pieces[-1][1] == hi
    assert len(pieces) <= max(1, 2 * (slices - 1).bit_length())


@pytest.mark.parametrize("slices", [1, 2, 3, 7, 8, 64])
def test_one_slice_is_one_piece_without_additions(slices: int) -> None:
    for k in range(slices):
        assert tree.pieces(k, k + 1, slices) == [(k, k + 1)]
        assert tree.slice_tasks(k, k + 1, slices) == ([tree.SliceTask(k, 0, ())], 1)


def test_the_order_of_five() -> None:

    assert _shown(0, 5) == "(((0 + 1) + (2 + 3)) + 4)"
    assert _shown(3, 6) == "((3 + 4) + 5)"


def _shown(a: int, b: int) -> str:
    if b - a == 1:
        return str(a)
    m = tree.middle(a, b)
    return f"({_shown(a, m)} + {_shown(m, b)})"
