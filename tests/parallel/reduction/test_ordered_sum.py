"""The tree's additions on vectors, against the definition evaluated in the same precision."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn.parallel.reduction import ordered_sum, tree
from distnn.parallel.reduction.partition import rank_slices


def definition(g: np.ndarray, a: int, b: int) -> np.ndarray:
    """T(a, b) of the rows of g, word for word."""
    if b - a == 1:
        return g[a]
    m = 1 << (b - a).bit_length() - 1
    m = m // 2 if m == b - a else m
    return definition(g, a, a + m) + definition(g, a + m, b)


@given(st.integers(1, 40), st.data(), st.booleans(), st.sampled_from(["f4", "f8"]))
def test_equals_the_definition_to_the_last_bit(
    slices: int, data: st.DataObject, keep: bool, dtype: str
) -> None:
    ranks = data.draw(st.integers(1, slices))
    draw = np.random.default_rng(slices * 100 + ranks)
    g = (draw.standard_normal((slices, 37)) * 10.0 ** draw.integers(-6, 6, (slices, 1))).astype(
        dtype
    )
    pieces = [
        piece
        for rank in range(ranks)
        for piece in tree.pieces(*rank_slices(rank, ranks, slices), slices)
    ]
    leaves = {(a, b): definition(g, a, b).copy() for a, b in pieces}
    before = {node: vector.copy() for node, vector in leaves.items()}
    scratch = [np.empty(37, dtype) for _ in range(ordered_sum.scratch_needed((0, slices), pieces))]
    additions, result = ordered_sum.plan((0, slices), leaves, scratch, keep=keep)
    ordered_sum.run(additions)
    assert result.tobytes() == definition(g, 0, slices).tobytes()
    first = min(leaves)
    assert (result is leaves[first]) == (keep or len(leaves) == 1)
    for node in leaves.keys() - {first}:
        assert np.array_equal(leaves[node], before[node])
    if not keep:
        assert np.array_equal(leaves[first], before[first])


def test_order_matters_and_is_the_trees() -> None:
    g = np.array([[1e8], [1.0], [-1e8], [1.0]], np.float32)
    leaves = {(k, k + 1): g[k].copy() for k in range(4)}
    scratch = [np.empty(1, np.float32) for _ in range(2)]
    additions, result = ordered_sum.plan((0, 4), leaves, scratch, keep=False)
    ordered_sum.run(additions)
    assert result[0] == 0.0  # (1e8 + 1) + (-1e8 + 1); from left to right it would be 1


def test_planned_once_run_often() -> None:
    leaves = {(0, 1): np.ones(3), (1, 2): np.ones(3)}
    additions, result = ordered_sum.plan((0, 2), leaves, [np.empty(3)], keep=False)
    for value in (1.0, 5.0):
        leaves[1, 2][:] = value
        ordered_sum.run(additions)
        assert result == pytest.approx(1 + value)
