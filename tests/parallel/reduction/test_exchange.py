"""A step of all ranks: the update of one process that evaluates the definitions, bit for bit."""

import threading
import time
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest

from distnn.parallel.comm import barrier as barrier_module
from distnn.parallel.comm.mpi import MPI
from distnn.parallel.comm.shared_memory import SharedMemory
from distnn.parallel.reduction import buckets, cache_lines, engine, granules, node_exchange, tree
from distnn.parallel.reduction.bucket_exchange import BucketExchange
from distnn.parallel.reduction.cache_lines import CACHE
from distnn.parallel.reduction.exchange import Exchange, Hook, Layout
from distnn.parallel.reduction.granules import GRANULE, Grid
from distnn.parallel.reduction.strategies import make_exchange

pytestmark = pytest.mark.mpi

# Blocks and buckets are made small, so that few elements are many of them: more than a block or a
# bucket for each of a few ranks, in one matrix and a bit of another; less than a granule, so that
# all but one rank or node own nothing; several matrices, two of them cut both ways, and buckets of
# both kinds.
BLOCK = 2 * GRANULE
BUCKET, SMALL_BUCKET = 4 * BLOCK, BLOCK // 2  # bytes: of two blocks, of an eighth of a block
WIDE = ([3], [200])
LARGE: tuple[Grid, ...] = (([4 * BLOCK + GRANULE], [1]), ([477], [1]))
SMALL: tuple[Grid, ...] = (([10], [10]),)
CUT: tuple[Grid, ...] = (
    ([20, 47], [210]), ([8, 16, 25], [160, 325]), WIDE, ([5, 70], [100, 210]), ([61], [9]),
    ([7], [5]),
)  # fmt: skip
GRIDS = {"large": LARGE, "small": SMALL, "cut": CUT}
STEPS = 3
SCALES = (1.0, 1e-6, 1.0)  # of the steps' gradients: those of the second are below CLIP
CLIP = 0.005


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(granules, "BLOCK", BLOCK)
    monkeypatch.setattr(buckets, "BUCKET", BUCKET)
    monkeypatch.setattr(buckets, "SMALL", SMALL_BUCKET)


@cache
def gradient(step: int, k: int, size: int, whole: bool = False) -> np.ndarray:
    """The gradient of slice k; of whole numbers, which every order adds alike, if asked for."""
    draw = np.random.default_rng([step, k])
    if whole:
        return draw.integers(-99, 99, size).astype(np.float32)
    scale = SCALES[step] * 10.0 ** (k % 5 - 3)
    return (draw.standard_normal(size) * scale).astype(np.float32)


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


@cache
def alone(
    slices: int, name: str, clip: float | None = None, whole: bool = False
) -> tuple[list[np.ndarray], np.ndarray]:
    """Weights before and after each step, and the state after them, on whole vectors, without
    anything of the exchange."""
    grids = GRIDS[name]
    size = size_of(grids)
    w, v = np.ones(size, np.float32), np.zeros(size, np.float32)
    weights = [w.copy()]
    for step in range(STEPS):
        gradients = [gradient(step, k, size, whole) for k in range(slices)]
        g = definition(gradients, 0, slices).copy()
        if clip is not None:
            norm = granule_norm(g, grids)
            if clip == CLIP:
                assert (norm > clip) == (whole or SCALES[step] == 1)
            if norm > clip:
                g = g * np.float32(clip / norm)
        rule(w, g, (v,), (np.empty_like(w), np.empty_like(w)))
        weights.append(w.copy())
    return weights, v


def one_step(exchange: Exchange, step: int, before: np.ndarray, whole: bool, stop: int) -> int:
    """As a session does it: forward and backward passes, and what they call.

    Args:
        before: the weights that the step's passes must find.
    """
    grids, size = exchange.layout.grids, exchange.layout.size
    found, expected = matrices(exchange.weights, grids), matrices(before, grids)
    for task in exchange.tasks:
        for layer, (_, columns) in enumerate(grids, 1):
            for block, (left, right) in enumerate(pairwise([0, *columns])):
                if exchange.before_weights is not None:
                    exchange.before_weights(layer, block)
                place = slice(None), slice(left, right)
                assert np.array_equal(found[layer - 1][place], expected[layer - 1][place])
        is_last = task is exchange.tasks[-1]
        if is_last:
            exchange.start([rule], stop)
        vector = exchange.vectors[task.vector]
        vector.fill(np.nan)
        whole_gradient = matrices(gradient(step, task.slice, size, whole), grids)
        for layer in range(len(grids), 0, -1):
            for block, (top, bottom) in enumerate(pairwise([0, *grids[layer - 1][0]])):
                rows = slice(top, bottom)
                matrices(vector, grids)[layer - 1][rows] = whole_gradient[layer - 1][rows]
                for left, right in task.additions:
                    sums, parts = (matrices(exchange.vectors[n], grids) for n in (left, right))
                    sums[layer - 1][rows] += parts[layer - 1][rows]
                assert np.array_equal(exchange.weights, before)  # which a backward pass needs
                if is_last and exchange.after_gradient is not None:
                    exchange.after_gradient(layer, block)
    return exchange.finish()


def trained(
    exchange: Exchange,
    expected: list[np.ndarray],
    whole: bool = False,
    first: int = 0,
    steps: int = STEPS,
) -> None:
    delay = int(exchange.before_weights is not None)  # stop requests arrive a step later
    for step in range(first, steps):
        stop = one_step(exchange, step, expected[step], whole, 7 * step + exchange.comm.rank)
        known = step - delay
        assert stop == (7 * known + exchange.comm.size - 1 if known >= first else 0)
    exchange.collect_state()


def matrices(vector: np.ndarray, grids: Sequence[Grid]) -> list[np.ndarray]:
    views, start = [], 0
    for rows, columns in grids:
        end = start + rows[-1] * columns[-1]
        views.append(vector[start:end].reshape(rows[-1], columns[-1]))
        start = end
    return views


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


def check(exchange: Exchange, expected: tuple[list[np.ndarray], np.ndarray]) -> None:
    weights, state = expected
    assert exchange.weights.tobytes() == weights[-1].tobytes()
    if exchange.comm.is_first:
        assert exchange.state["v"].tobytes() == state.tobytes()
    exchange.barrier.wait()
    exchange.close()


@pytest.mark.parametrize("grids", GRIDS)
@pytest.mark.parametrize("clip", [None, CLIP, 1e9], ids=["", "clipped", "not clipped"])
@pytest.mark.parametrize("more", [0, 3], ids=["S = P", "S > P"])
@pytest.mark.parametrize("update", ["rank0", "sharded"])
def test_the_same_bits_as_one_process(
    memory: SharedMemory, grids: str, clip: float | None, more: int, update: str
) -> None:
    slices = memory.comm.size + more
    exchange = start(memory, GRIDS[grids], slices, update=update, clip_norm=clip)
    expected = alone(slices, grids, clip)
    trained(exchange, expected[0])
    check(exchange, expected)


@pytest.mark.parametrize("clip", [None, CLIP], ids=["", "clipped"])
@pytest.mark.parametrize("update", ["rank0", "sharded"])
def test_the_same_bits_with_one_message_at_a_time(
    memory: SharedMemory, clip: float | None, update: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nodes get more than they send, and the other way round."""
    monkeypatch.setattr(engine, "WINDOW", 1)
    test_the_same_bits_as_one_process(memory, "cut", clip, 3, update)


@pytest.mark.parametrize("clip", [None, CLIP], ids=["", "clipped"])
@pytest.mark.parametrize("update", ["rank0", "sharded"])
def test_the_same_bits_where_mpi_allows_one_thread(
    memory: SharedMemory, clip: float | None, update: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = threading.active_count()
    monkeypatch.setattr(MPI, "Query_thread", lambda: MPI.THREAD_FUNNELED)
    slices = memory.comm.size + 3
    exchange = start(memory, CUT, slices, update=update, clip_norm=clip)
    expected = alone(slices, "cut", clip)
    trained(exchange, expected[0])
    assert threading.active_count() == threads
    check(exchange, expected)


@pytest.mark.parametrize(
    ("late", "clip"), [("first", None), ("last", CLIP), ("any", None), ("any", CLIP)]
)
@pytest.mark.parametrize("update", ["rank0", "sharded"])
def test_the_same_bits_whoever_is_late(
    memory: SharedMemory, clip: float | None, update: str, late: str
) -> None:
    comm = memory.comm
    slices = comm.size + 3
    exchange = start(memory, CUT, slices, update=update, clip_norm=clip)
    is_late = {"first": comm.rank == 0, "last": comm.rank == comm.size - 1, "any": True}[late]
    draw = np.random.default_rng(comm.rank)

    def delayed(hook: Hook | None) -> Hook | None:
        def wait_and_call(layer: int, block: int) -> None:
            assert hook is not None
            time.sleep(draw.choice([0, 0, 0.002]))
            hook(layer, block)

        return wait_and_call if hook is not None and is_late else hook

    exchange.before_weights = delayed(exchange.before_weights)
    exchange.after_gradient = delayed(exchange.after_gradient)
    expected = alone(slices, "cut", clip)
    trained(exchange, expected[0])
    check(exchange, expected)


class Late:
    """A request to send that starts some milliseconds after `Start`."""

    def __init__(self, request: Any) -> None:
        self._request, self._due = request, 0.0

    def Start(self) -> None:
        self._due = time.monotonic() + 0.01

    def Test(self) -> bool:
        if self._due and time.monotonic() >= self._due:
            self._due = 0.0
            self._request.Start()
        return not self._due and bool(self._request.Test())


@pytest.mark.parametrize("clip", [None, CLIP], ids=["", "clipped"])
@pytest.mark.parametrize("update", ["rank0", "sharded"])
def test_a_stop_request_that_comes_after_the_weights(
    memory: SharedMemory, clip: float | None, update: str
) -> None:
    """A node that adds up nothing of the first bucket has its weights before all stop requests."""
    slices = memory.comm.size
    exchange = start(memory, SMALL, slices, update=update, clip_norm=clip)
    if isinstance(exchange, BucketExchange):
        for messages in exchange._engine._pieces_out.values():
            messages[:] = [
                one._replace(request=cast(Any, Late(one.request))) if one.size == 0 else one
                for one in messages
            ]
    expected = alone(slices, "small", clip)
    trained(exchange, expected[0])
    check(exchange, expected)


@pytest.mark.parametrize("update", ["rank0", "sharded"])
def test_a_stop_request_of_any_rank_reaches_all(memory: SharedMemory, update: str) -> None:
    comm = memory.comm
    exchange = start(memory, SMALL, comm.size, update=update)
    delay = int(exchange.before_weights is not None)
    weights = exchange.weights
    found = []
    for rank in (*range(comm.size), None):
        exchange.flush()
        exchange.barrier.wait()
        before = weights.copy()
        exchange.barrier.wait()
        stop = 5 * (comm.rank + 1) if comm.rank == rank else 0
        found.append(one_step(exchange, 0, before, False, stop))
    requests = [5 * (rank + 1) for rank in range(comm.size)]
    assert found == ([0, *requests] if delay else [*requests, 0])
    exchange.close()


@pytest.mark.parametrize("grids", ["small", "cut"])
@pytest.mark.parametrize("update", ["rank0", "sharded"])
def test_state_and_weights_go_on_in_another_exchange(
    memory: SharedMemory, grids: str, update: str
) -> None:
    slices = memory.comm.size + 1
    expected = alone(slices, grids)
    first = start(memory, GRIDS[grids], slices, update=update)
    trained(first, expected[0], steps=1)
    second = start(memory, GRIDS[grids], slices, update="sharded")
    if memory.comm.is_first:
        second.weights[:] = first.weights
        second.state["v"][:] = first.state["v"]
    second.share_weights()
    second.share_state()
    trained(second, expected[0], first=1)
    first.close()
    check(second, expected)


@pytest.mark.parametrize("clip", [None, CLIP], ids=["", "clipped"])
@pytest.mark.parametrize("update", ["rank0", "sharded"])
def test_mpis_own_sum_is_a_sum(memory: SharedMemory, clip: float | None, update: str) -> None:
    slices = memory.comm.size + 3
    expected = alone(slices, "large", clip, whole=True)
    exchange = start(memory, LARGE, slices, reduce="mpi", update=update, clip_norm=clip)
    trained(exchange, expected[0], whole=True)
    check(exchange, expected)


def test_these_vectors_are_several_buckets_and_blocks() -> None:
    """What the other tests rely on: none of these vectors has become too small for them."""
    count = {name: len(buckets.plan_buckets(grids, 4)) for name, grids in GRIDS.items()}
    assert count["small"] == 1
    assert count["large"] > 4
    assert count["cut"] > 3 * 4
    ends = granules.granule_ends(LARGE)
    assert len(granules.block_ranges(ends, 0, size_of(LARGE))) > 4
    assert any(np.diff(granules.granule_ends(CUT)) < 200)


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
    test_the_same_bits_as_one_process(memory, "large", clip, 3, update)


@pytest.mark.parametrize("clip", [None, CLIP], ids=["", "clipped"])
def test_the_same_bits_where_all_add_up_and_rank_0_updates(
    memory: SharedMemory, clip: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_exchange, "splits_sum", lambda size, ranks, _: ranks > 1)
    test_the_same_bits_as_one_process(memory, "cut", clip, 3, "rank0")


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
