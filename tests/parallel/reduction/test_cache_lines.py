"""Taking lines stores once to each, and changes nothing."""

import numpy as np
import pytest

from distnn.parallel.reduction.cache_lines import lines_of, take


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 4096, 4099])
def test_one_element_of_every_line(size: int, dtype: str) -> None:
    vector = np.ones(size, dtype)
    lines_of(vector).fill(0)
    touched = np.flatnonzero(vector == 0) * vector.itemsize // 64
    assert touched.tolist() == list(range(-(-vector.nbytes // 64)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_bit_is_kept(dtype: str) -> None:
    words = np.random.default_rng(0).integers(0, 256, 1 << 16, np.uint8)  # NaNs, denormals
    vector = words.view(dtype)
    vector[0] = -0.0
    before, other = vector.tobytes(), np.empty_like(vector)
    with np.errstate(all="ignore"):
        take(lines_of(vector))
        np.copyto(other, vector)
    assert vector.tobytes() == other.tobytes() == before
