"""A claim stores once to each cache line, and changes nothing that is to be kept."""

import os

import numpy as np
import pytest

from distnn.parallel.claims import CACHE, Claims, lines_of
from distnn.parallel.exchange import Exchange
from distnn.parallel.memory import SharedMemory

NOTHING = np.empty(0, np.float32)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 4096, 4099])
def test_one_element_of_every_line(size: int, dtype: str) -> None:
    vector = np.ones(size, dtype)
    lines_of(vector).fill(0)
    touched = np.flatnonzero(vector == 0) * vector.itemsize // 64
    assert touched.tolist() == list(range(-(-vector.nbytes // 64)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_bit_of_the_weights_is_kept(dtype: str) -> None:
    words = np.random.default_rng(0).integers(0, 256, 1 << 16, np.uint8)  # NaNs, denormals
    vector = words.view(dtype)
    vector[0] = -0.0
    before = vector.tobytes()
    with np.errstate(all="ignore"):
        Claims([], vector).weights()
    assert vector.tobytes() == before


def test_large_gradients_are_let_alone() -> None:
    sizes = [0, 100, CACHE // 4, CACHE // 4 + 1]
    parts = [np.ones(size, np.float32) for size in sizes]
    Claims(parts, NOTHING).gradients()
    assert [np.count_nonzero(part == 0) for part in parts] == [0, 7, CACHE // 64, 0]


@pytest.mark.mpi
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the cores are not known here")
@pytest.mark.parametrize("reduce", ["ordered", "mpi"])
@pytest.mark.parametrize("sharded", [False, True], ids=["rank0", "sharded"])
def test_claimed_is_what_others_read(memory: SharedMemory, reduce: str, sharded: bool) -> None:
    team, size = memory.team, 5000
    exchange = Exchange(memory, size, np.float32, team.size, reduce=reduce, sharded=sharded)
    exchange.vectors[0].fill(1)
    exchange.begin()
    granules = -(-size // 1024)
    bounds = [min(size, 1024 * (rank * granules // team.size)) for rank in range(team.size + 1)]
    if not sharded:
        bounds = [0] + [size] * team.size
    own = range(bounds[team.rank], bounds[team.rank + 1])
    claims = 1 < team.node_size <= len(os.sched_getaffinity(0)) and reduce == "ordered"
    claimed = [at for at in range(0, size * claims, 16) if at not in own]
    assert np.flatnonzero(exchange.vectors[0] == 0).tolist() == claimed
