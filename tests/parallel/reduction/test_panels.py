"""Panels cover every matrix of a vector once, each inside a block of rows and one of columns."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distnn.parallel.reduction.panels import PANEL, backward, cut

ENDS = st.lists(st.integers(1, 900), min_size=1, max_size=4, unique=True).map(sorted)
GRIDS = st.lists(st.tuples(ENDS, ENDS), min_size=1, max_size=3)


@given(GRIDS, st.sampled_from([4, 8]))
def test_each_weight_lies_in_one_panel(
    grids: list[tuple[list[int], list[int]]], itemsize: int
) -> None:
    count = np.zeros(sum(rows[-1] * columns[-1] for rows, columns in grids), np.int8)
    start = 0
    for layer, (rows, columns) in enumerate(grids, 1):
        matrix = count[start : start + rows[-1] * columns[-1]].reshape(rows[-1], columns[-1])
        start += matrix.size
        blocks = [list(pairwise([0, *ends])) for ends in (rows, columns)]
        for panel in cut(grids, itemsize):
            if panel.layer != layer:
                continue
            view = panel.view(count)
            assert view.shape == panel.shape
            assert view.size * itemsize <= PANEL
            view += 1
            (top, bottom), (left, right) = (
                blocks[0][panel.row_block],
                blocks[1][panel.column_block],
            )
            assert (matrix[top:bottom, left:right] > 0).sum() >= view.size
            assert top <= panel.top < panel.bottom <= bottom
            assert left == panel.left < panel.right == right
    assert (count == 1).all()


def test_panels_come_as_a_forward_pass_needs_them_and_blocks_as_a_backward_pass_ends_them() -> None:
    grids = [([2, 5], [3, 6]), ([7], [4])]
    order = [(p.layer, p.column_block, p.row_block) for p in cut(grids, 4)]
    assert order == [(1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1), (2, 0, 0)]
    assert backward(grids) == [(2, 0), (1, 0), (1, 1)]
