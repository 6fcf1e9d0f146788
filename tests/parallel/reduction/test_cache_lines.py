"""Taking lines stores once to each, and changes nothing; weights come back in the gradients'."""

import numpy as np
import pytest

from distnn.parallel.reduction.cache_lines import CacheLines, lines_of, take


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 4096, 4099])
def test_one_element_of_every_line(size: int, dtype: str) -> None:
    vector = np.ones(size, dtype)
    lines_of(vector).fill(0)
    touched = np.flatnonzero(vector == 0) * vector.itemsize // 64
    assert touched.tolist() == list(range(-(-vector.nbytes // 64)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_bit_is_kept(dtype: str) -> None:
    some = np.random.default_rng(0).integers(0, 256, 1 << 16, np.uint8)  # NaNs, denormals
    vector = some.view(dtype)
    vector[0] = -0.0
    before = vector.tobytes()
    with np.errstate(all="ignore"):
        take(lines_of(vector))
    assert vector.tobytes() == before


def test_nothing_is_done_unless_something_is_given() -> None:
    lines = CacheLines()
    lines.take_weights()
    lines.receive_weights()
    assert lines.gradient_lines(0, 16) == lines.outgoing(0, 16) == []


def test_one_element_of_each_line_of_the_others_gradients() -> None:
    gradients = [np.ones(64, "f4") for _ in range(2)]
    for line in CacheLines(np.ones(32, "f4"), gradients).gradient_lines(16, 48):
        line.fill(0)
    for gradient in gradients:
        assert np.flatnonzero(gradient == 0).tolist() == [16, 32]


def test_new_weights_go_out_and_come_in_by_the_gradients() -> None:
    """Two ranks of two parts: each has the other's part in the end."""
    boxes = [np.zeros(64, "f4") for _ in range(2)]
    weights = [np.zeros(64, "f4") for _ in range(2)]
    parts = [(0, 32), (32, 64)]
    ranks = []
    for me in range(2):
        lo, hi = parts[1 - me]
        inbox = [(boxes[me][lo:hi], weights[me][lo:hi])]
        ranks.append(CacheLines(None, [boxes[1 - me]], [boxes[1 - me]], inbox))
    for me, (lo, hi) in enumerate(parts):
        weights[me][lo:hi] = np.arange(lo, hi)
        (target,) = ranks[me].outgoing(lo, hi)
        np.copyto(target, weights[me][lo:hi])
    for rank in ranks:
        rank.receive_weights()
    assert [vector.tolist() for vector in weights] == [list(range(64))] * 2
