"""A step of all ranks: the update of one process that evaluates the definitions, bit for bit."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from distnn.parallel.comm import barrier as gates_module
from distnn.parallel.comm.shared_memory import SharedMemory
from distnn.parallel.reduction import cache_lines, tree
from distnn.parallel.reduction.blocks import BLOCK, GRANULE
from distnn.parallel.reduction.cache_lines import CACHE
from distnn.parallel.reduction.exchange import Exchange

pytestmark = pytest.mark.mpi

SIZE = 2 * BLOCK + 3 * GRANULE + 77  # more than a block for each of a few ranks
SMALL = 100  # less than a granule: all but one rank own nothing
STEPS = 3
CLIP = 1.5


def gradient(step: int, k: int, size: int, whole: bool = False) -> np.ndarray:
    """The gradient of slice k; of whole numbers, which every order adds alike, if asked for."""
    draw = np.random.default_rng([step, k])
    if whole:
        return draw.integers(-99, 99, size).astype(np.float32)
    return (draw.standard_normal(size) * 10.0 ** (k % 5 - 3)).astype(np.float32)


def rule(
    w: np.ndarray, g: np.ndarray, state: Sequence[np.ndarray], scratch: Sequence[np.ndarray]
) -> None:
    """v = v / 2 + g; w -= v / 16, through the scratch vectors that a rule is given."""
    (v,) = state
    np.multiply(v, np.float32(0.5), out=v)
    np.add(v, g, out=v)
    np.multiply(v, np.float32(0.0625), out=scratch[0])
    np.subtract(w, scratch[0], out=w)
    g.fill(np.nan)  # a rule may use the gradient up
    scratch[1].fill(np.nan)


def definition(gradients: list[np.ndarray], a: int, b: int) -> np.ndarray:
    if b - a == 1:
        return gradients[a]
    m = tree.middle(a, b)
    return definition(gradients, a, m) + definition(gradients, m, b)


def granule_norm(g: np.ndarray) -> float:
    """The norm as it is defined: squares of each granule in float32, their sum from left to right
    in float64."""
    total = 0.0
    for start in range(0, len(g), GRANULE):
        part = g[start : start + GRANULE]
        total += float(np.vecdot(part, part))
    return float(np.sqrt(total))


def alone(slices: int, size: int, clip: float | None, whole: bool) -> tuple[np.ndarray, np.ndarray]:
    """Weights and state after the steps, on whole vectors, without anything of the exchange."""
    w, v = np.ones(size, np.float32), np.zeros(size, np.float32)
    for step in range(STEPS):
        gradients = [gradient(step, k, size, whole) for k in range(slices)]
        g = definition(gradients, 0, slices)
        if clip is not None and (norm := granule_norm(g)) > clip:
            g = g * np.float32(clip / norm)
        rule(w, g.copy(), (v,), (np.empty_like(w), np.empty_like(w)))
    return w, v


def trained(exchange: Exchange, whole: bool = False) -> None:
    size = len(exchange.weights)
    for step in range(STEPS):
        for task in exchange.tasks:
            exchange.vectors[task.vector][:] = gradient(step, task.slice, size, whole)
            exchange.add_up(task)
        assert exchange.step(rule, exchange.comm.rank) == exchange.comm.size - 1
    exchange.collect_state()


def start(memory: SharedMemory, size: int, slices: int, **ways: Any) -> Exchange:
    exchange = Exchange(memory, size, np.float32, slices, state=("v",), **ways)
    if memory.comm.is_first:
        exchange.weights.fill(1)
    exchange.share_weights()
    return exchange


@pytest.mark.parametrize("size", [SIZE, SMALL])
@pytest.mark.parametrize("clip", [None, CLIP, 1e9], ids=["", "clipped", "not clipped"])
@pytest.mark.parametrize("more", [0, 3], ids=["S = P", "S > P"])
@pytest.mark.parametrize("sharded", [False, True], ids=["rank0", "sharded"])
def test_the_same_bits_as_one_process(
    memory: SharedMemory, size: int, clip: float | None, more: int, sharded: bool
) -> None:
    slices = memory.comm.size + more
    exchange = start(memory, size, slices, sharded=sharded, clip_norm=clip)
    trained(exchange)
    weights, state = alone(slices, size, clip, whole=False)
    assert exchange.weights.tobytes() == weights.tobytes()
    if memory.comm.is_first:
        assert exchange.state["v"].tobytes() == state.tobytes()


@pytest.mark.parametrize("clip", [None, CLIP], ids=["", "clipped"])
@pytest.mark.parametrize("sharded", [False, True], ids=["rank0", "sharded"])
def test_mpis_own_sum_is_a_sum(memory: SharedMemory, clip: float | None, sharded: bool) -> None:
    slices = memory.comm.size + 3
    exchange = start(memory, SIZE, slices, reduce="mpi", sharded=sharded, clip_norm=clip)
    trained(exchange, whole=True)
    weights, state = alone(slices, SIZE, clip, whole=True)
    assert exchange.weights.tobytes() == weights.tobytes()
    if memory.comm.is_first:
        assert exchange.state["v"].tobytes() == state.tobytes()


@pytest.fixture(params=["crowded", "small", "large"])
def crowd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All ways to hand weights over, whatever this machine's number of cores and its caches."""
    monkeypatch.setattr(gates_module, "is_oversubscribed", lambda _comm: request.param == "crowded")
    if request.param == "large":
        monkeypatch.setattr(cache_lines, "CACHE", 0)


@pytest.mark.usefixtures("crowd")
@pytest.mark.parametrize("clip", [None, CLIP], ids=["", "clipped"])
@pytest.mark.parametrize("sharded", [False, True], ids=["rank0", "sharded"])
def test_the_same_bits_however_weights_are_handed_over(
    memory: SharedMemory, clip: float | None, sharded: bool
) -> None:
    test_the_same_bits_as_one_process(memory, SIZE, clip, 3, sharded)


@pytest.mark.parametrize("ways", [{}, {"sharded": True}, {"reduce": "mpi", "sharded": True}])
@pytest.mark.parametrize("size", [SMALL, CACHE // 4 + 1])
def test_small_weights_are_each_ranks_own(
    memory: SharedMemory, size: int, ways: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates_module, "is_oversubscribed", lambda _comm: False)
    comm = memory.comm
    exchange = start(memory, size, comm.size, **ways)
    assert exchange.weights.tolist() == [1] * size
    exchange.barrier.wait()
    if comm.node_rank == 0:
        exchange.weights[0] = 2
    exchange.barrier.wait()
    few = "sharded" in ways or comm.size == 2
    own = size == SMALL and few and comm.node_size == comm.size and "reduce" not in ways
    assert exchange.weights[0] == (1 if own and comm.node_rank > 0 else 2)


def test_no_gradient_is_copied_where_each_rank_has_one_slice(memory: SharedMemory) -> None:
    exchange = start(memory, SMALL, memory.comm.size)
    assert len(exchange.vectors) == 1
    assert [task.additions for task in exchange.tasks] == [()]
