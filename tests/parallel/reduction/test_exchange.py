"""A step of all ranks: the update of one process that evaluates the definitions, bit for bit."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from distnn.parallel.comm import barrier as barrier_module
from distnn.parallel.comm.shared_memory import SharedMemory
from distnn.parallel.reduction import cache_lines, node_exchange, tree
from distnn.parallel.reduction.cache_lines import CACHE
from distnn.parallel.reduction.exchange import Exchange, Layout
from distnn.parallel.reduction.granules import BLOCK, GRANULE, Grid
from distnn.parallel.reduction.strategies import make_exchange

pytestmark = pytest.mark.mpi

# More than a block for each of a few ranks, in one matrix and a bit of another; less than a granule
# (then all but one rank or node own nothing); several matrices, two of them cut both ways, and
# buckets of both kinds.
WIDE = ([3], [200])
LARGE: tuple[Grid, ...] = (([2 * BLOCK + 3 * GRANULE], [1]), ([77], [1]))
SMALL: tuple[Grid, ...] = (([10], [10]),)
CUT: tuple[Grid, ...] = (
    ([64, 150], [2100]), ([64, 128, 200], [640, 1300]), WIDE, ([5, 300], [1000, 2100]), ([301], [9])
)  # fmt: skip
GRIDS = {"large": LARGE, "small": SMALL, "cut": CUT}
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


def granule_norm(g: np.ndarray, grids: Sequence[Grid]) -> float:
    """The norm as it is defined: squares of each granule in float32, their sum from left to right
    in float64. A granule is a row of a block of columns, or 1,024 elements of what is not cut."""
    total, start, runs = 0.0, 0, [np.empty(0, np.float32)]

    def add(elements: np.ndarray) -> None:
        nonlocal total
        for at in range(0, len(elements), GRANULE):
            part = elements[at : at + GRANULE]
            total += float(np.vecdot(part, part))

    for row_ends, column_ends in grids:
        rows, width = row_ends[-1], column_ends[-1]
        matrix = g[start : start + rows * width].reshape(rows, width)
        start += rows * width
        if len(column_ends) == 1:
            runs.append(matrix.reshape(-1))
            continue
        add(np.concatenate(runs))
        runs = runs[:1]
        for row in matrix:
            for left, right in zip([0, *column_ends[:-1]], column_ends, strict=True):
                total += float(np.vecdot(row[left:right], row[left:right]))
    add(np.concatenate(runs))
    return float(np.sqrt(total))


def size_of(grids: Sequence[Grid]) -> int:
    return sum(rows[-1] * columns[-1] for rows, columns in grids)


def alone(
    slices: int, grids: Sequence[Grid], clip: float | None, whole: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and state after the steps, on whole vectors, without anything of the exchange."""
    size = size_of(grids)
    w, v = np.ones(size, np.float32), np.zeros(size, np.float32)
    for step in range(STEPS):
        gradients = [gradient(step, k, size, whole) for k in range(slices)]
        g = definition(gradients, 0, slices)
        if clip is not None and (norm := granule_norm(g, grids)) > clip:
            g = g * np.float32(clip / norm)
        rule(w, g.copy(), (v,), (np.empty_like(w), np.empty_like(w)))
    return w, v


def one_step(exchange: Exchange, step: int, whole: bool, stop: int) -> int:
    """As a session does it: forward and backward passes, and what they call."""
    grids, size = exchange.layout.grids, exchange.layout.size
    for task in exchange.tasks:
        for layer, (_, columns) in enumerate(grids, 1):
            for block in range(len(columns)):
                if exchange.before_weights is not None:
                    exchange.before_weights(layer, block)
        is_last = task is exchange.tasks[-1]
        if is_last:
            exchange.start(rule, stop)
        exchange.vectors[task.vector][:] = gradient(step, task.slice, size, whole)
        for layer in range(len(grids), 0, -1):
            for block in range(len(grids[layer - 1][0])):
                if is_last and exchange.after_gradient is not None:
                    exchange.after_gradient(layer, block)
        for left, right in task.additions:
            exchange.vectors[left] += exchange.vectors[right]
    return exchange.finish()


def trained(exchange: Exchange, whole: bool = False, first: int = 0, steps: int = STEPS) -> None:
    delay = int(exchange.before_weights is not None)  # stop requests arrive a step later
    for step in range(first, steps):
        stop = one_step(exchange, step, whole, 7 * step + exchange.comm.rank)
        known = step - delay
        assert stop == (7 * known + exchange.comm.size - 1 if known >= first else 0)
    exchange.collect_state()


def start(
    memory: SharedMemory,
    grids: Sequence[Grid],
    slices: int,
    *,
    reduce: str = "ordered",
    update: str = "rank0",
    clip_norm: float | None = None,
) -> Exchange:
    layout = Layout(tuple(grids), np.dtype(np.float32), slices, ("v",))
    exchange = make_exchange(memory, layout, reduce=reduce, update=update, clip_norm=clip_norm)
    if memory.comm.is_first:
        exchange.weights.fill(1)
    exchange.share_weights()
    return exchange


def check(exchange: Exchange, expected: tuple[np.ndarray, np.ndarray]) -> None:
    weights, state = expected
    assert exchange.weights.tobytes() == weights.tobytes()
    if exchange.comm.is_first:
        assert exchange.state["v"].tobytes() == state.tobytes()
    exchange.barrier.wait()
    exchange.close()


@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("clip", [None, CLIP, 1e9], ids=["", "clipped", "not clipped"])
@pytest.mark.parametrize("more", [0, 3], ids=["S = P", "S > P"])
@pytest.mark.parametrize("update", ["rank0", "sharded"])
def test_the_same_bits_as_one_process(
    memory: SharedMemory, grids: Sequence[Grid], clip: float | None, more: int, update: str
) -> None:
    slices = memory.comm.size + more
    exchange = start(memory, grids, slices, update=update, clip_norm=clip)
    trained(exchange)
    check(exchange, alone(slices, grids, clip, whole=False))


@pytest.mark.parametrize("grids", [SMALL, CUT], ids=["small", "cut"])
@pytest.mark.parametrize("update", ["rank0", "sharded"])
def test_state_and_weights_go_on_in_another_exchange(
    memory: SharedMemory, grids: Sequence[Grid], update: str
) -> None:
    slices = memory.comm.size + 1
    first = start(memory, grids, slices, update=update)
    trained(first, steps=1)
    second = start(memory, grids, slices, update="sharded")
    if memory.comm.is_first:
        second.weights[:] = first.weights
        second.state["v"][:] = first.state["v"]
    second.share_weights()
    second.share_state()
    trained(second, first=1)
    first.close()
    check(second, alone(slices, grids, None, whole=False))


@pytest.mark.parametrize("clip", [None, CLIP], ids=["", "clipped"])
@pytest.mark.parametrize("update", ["rank0", "sharded"])
def test_mpis_own_sum_is_a_sum(memory: SharedMemory, clip: float | None, update: str) -> None:
    slices = memory.comm.size + 3
    exchange = start(memory, LARGE, slices, reduce="mpi", update=update, clip_norm=clip)
    trained(exchange, whole=True)
    check(exchange, alone(slices, LARGE, clip, whole=True))


@pytest.fixture(params=["oversubscribed", "small", "large"])
def cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All ways in which weights reach the ranks, whatever this machine's cores and caches."""
    monkeypatch.setattr(
        barrier_module, "is_oversubscribed", lambda _comm: request.param == "oversubscribed"
    )
    if request.param == "large":
        monkeypatch.setattr(cache_lines, "CACHE", 0)


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize("clip", [None, CLIP], ids=["", "clipped"])
@pytest.mark.parametrize("update", ["rank0", "sharded"])
def test_the_same_bits_whatever_the_cores(
    memory: SharedMemory, clip: float | None, update: str
) -> None:
    test_the_same_bits_as_one_process(memory, LARGE, clip, 3, update)


@pytest.mark.parametrize("grids", [LARGE, CUT], ids=["large", "cut"])
@pytest.mark.parametrize("clip", [None, CLIP], ids=["", "clipped"])
def test_the_same_bits_where_all_add_up_and_rank_0_updates(
    memory: SharedMemory,
    grids: Sequence[Grid],
    clip: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(node_exchange, "splits_sum", lambda size, ranks, _: ranks > 1)
    test_the_same_bits_as_one_process(memory, grids, clip, 3, "rank0")


@pytest.mark.parametrize("ways", [{}, {"update": "sharded"}, {"reduce": "mpi"}])
@pytest.mark.parametrize("grids", [SMALL, (([CACHE // 4 + 1], [1]),)], ids=["small", "large"])
def test_small_weights_are_each_ranks_own(
    memory: SharedMemory,
    grids: Sequence[Grid],
    ways: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(barrier_module, "is_oversubscribed", lambda _comm: False)
    comm = memory.comm
    exchange = start(memory, grids, comm.size, **ways)
    assert exchange.weights.tolist() == [1] * size_of(grids)
    exchange.barrier.wait()
    if comm.node_rank == 0:
        exchange.weights[0] = 2
    exchange.barrier.wait()
    few = "update" in ways or comm.size == 2
    own = grids is SMALL and few and comm.node_size == comm.size and "reduce" not in ways
    assert exchange.weights[0] == (1 if own and comm.node_rank > 0 else 2)
    exchange.barrier.wait()
    exchange.close()


def test_no_gradient_is_copied_where_each_rank_has_one_slice(memory: SharedMemory) -> None:
    exchange = start(memory, SMALL, memory.comm.size)
    assert len(exchange.vectors) == 1
    assert [task.additions for task in exchange.tasks] == [()]
    exchange.close()
