"""A training set of which two windows are in memory: its order, exactly once, and its failures."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distnn.data.blocks import Blocks, Piece
from distnn.data.order import window_order, windows
from distnn.errors import InputError
from distnn.parallel.comm import communicator as communicator_module
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.parallel.comm.shared_memory import SharedMemory, closing
from distnn.training.dataset import RowLayout
from distnn.training.streamed import StreamedDataset, WindowSizes, window_specs

WORLD = MPI.COMM_WORLD


class Numbers(Blocks):
    """Row i holds i; blocks come in pieces of 3 rows."""

    where = y_where = "numbers"
    features, is_weighted = 1, True

    def __init__(self, sizes: list[int], slow: float = 0.0) -> None:
        self.sizes, self.slow = sizes, slow
        self.broken: int | None = None

    def read(self, block: int) -> Iterator[Piece]:
        if block == self.broken:
            raise InputError("damaged", f"block {block}")
        if self.slow:
            time.sleep(self.slow * (block % 3))
        start = sum(self.sizes[:block])
        end = start + self.sizes[block]
        for first in range(start, end, 3):
            rows = np.arange(first, min(first + 3, end), dtype=np.float64)
            yield Piece(first, rows[:, None], -rows, rows / 2)


def write(piece: Piece, X: np.ndarray, T: np.ndarray, weights: np.ndarray | None) -> None:
    X[:, 0], X[:, 1:], T[:, 0] = 1, piece.x, piece.y
    assert weights is not None
    weights[:] = piece.weights


def opened(memory: SharedMemory, blocks: Numbers, least: int) -> StreamedDataset:
    sizes = WindowSizes(len(blocks), least, max(blocks.sizes))
    specs = window_specs(sizes, RowLayout(1, 1, 0, np.float64, True))
    arrays = [memory.array(spec.shape, spec.dtype) for spec in specs]
    dataset = StreamedDataset(memory, arrays, sizes, 0)
    dataset.begin(blocks, write, sum(range(len(blocks))) / 2)
    return dataset


def gathered(dataset: StreamedDataset, start: int, batch: int) -> np.ndarray:
    """The rows of a batch; their targets and weights are theirs."""
    rows = dataset.batch(start, start + batch)
    A0, T = np.empty((len(rows), 2)), np.empty((len(rows), 1))
    dataset.gather(rows, A0, T)
    assert dataset.weights is not None
    assert (T[:, 0] == -A0[:, 1]).all()
    assert (dataset.weights[rows] == A0[:, 1] / 2).all()
    assert (A0[:, 0] == 1).all()
    return A0[:, 1].astype(int)


def order_of(sizes: list[int], least: int, seed: int, epoch: int) -> np.ndarray:
    """Restated: blocks, then rows of a window."""
    starts = np.cumsum([0, *sizes])
    parts = []
    for number, window in enumerate(windows(sizes, least, seed, epoch)):
        rows = np.concatenate([np.arange(starts[b], starts[b + 1]) for b in window])
        parts.append(rows[window_order(len(rows), seed, epoch, number)])
    return np.concatenate(parts)


def check(comm: Communicator, sizes: list[int], least: int, batch: int, begin: int) -> None:
    """Epochs 1 to 3, the first from step `begin` on, hold every row once, in the order restated."""
    n, memory = sum(sizes), SharedMemory(comm)
    steps = -(-n // batch)
    with closing(memory):
        dataset = opened(memory, Numbers(sizes), least)
        for epoch in (1, 2, 3):
            dataset.begin_epoch(5, epoch)
            first = min(begin, steps - 1) if epoch == 1 else 0
            rows = [gathered(dataset, step * batch, batch) for step in range(first, steps)]
            whole = order_of(sizes, least, 5, epoch)
            assert (np.concatenate(rows) == whole[first * batch :]).all()
            assert (np.sort(whole) == np.arange(n)).all()
        dataset.close()
        comm.agree(None)


cases = {
    "sizes": st.lists(st.integers(1, 12), min_size=1, max_size=25),
    "least": st.integers(1, 40),
    "batch": st.integers(1, 40),
    "begin": st.integers(0, 60),
}


@settings(max_examples=100)
@given(**cases)
def test_every_row_once_per_epoch_from_any_step_on(sizes, least, batch, begin):
    check(Communicator(MPI.COMM_SELF), sizes, max(least, batch), batch, begin)


@pytest.fixture(params=["one node", "nodes dealt out", "a node per rank"])
def comm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Communicator:
    if request.param == "nodes dealt out":

        def dealt(base: MPI.Comm, shared: bool) -> MPI.Comm:
            return base.Split(base.rank % 2, base.rank)

        monkeypatch.setattr(communicator_module, "_node_communicator", dealt)
    return Communicator(shared=request.param != "a node per rank")


@pytest.mark.mpi
def test_the_same_rows_on_any_ranks_and_nodes(comm):
    @settings(max_examples=6)
    @given(**cases)
    def run(sizes, least, batch, begin):
        check(comm, sizes, max(least, batch), batch, begin)

    run()


@pytest.mark.mpi
def test_no_rank_overtakes_another(comm):
    """Ranks that gather and read at different speeds: nothing is overwritten in use."""
    sizes, batch = [7] * 12, 10
    memory = SharedMemory(comm)
    with closing(memory):
        dataset = opened(memory, Numbers(sizes, slow=0.002), 20)
        for epoch in range(3):
            dataset.begin_epoch(1, epoch)
            whole = order_of(sizes, 20, 1, epoch)
            for start in range(0, len(whole), batch):
                time.sleep(0.003 * ((start + comm.rank) % 3))
                assert (gathered(dataset, start, batch) == whole[start : start + batch]).all()
        dataset.close()
        comm.agree(None)


@pytest.mark.mpi
@pytest.mark.parametrize("broken", [0, 7, 11])
def test_an_error_of_one_thread_is_raised_on_every_rank(comm, broken):
    memory = SharedMemory(comm)
    dataset = opened(memory, Numbers([7] * 12), 20)
    dataset._blocks.broken = broken
    dataset.begin_epoch(1, 0)

    def epoch() -> None:
        for start in range(0, 84, 10):
            gathered(dataset, start, 10)

    with closing(memory):
        with pytest.raises(InputError, match=f"block {broken}: damaged"):
            epoch()
        dataset.close()
    assert not any(thread.name == "distnn reader" for thread in threading.enumerate())


def test_a_mistake_in_a_thread_is_no_bad_input(monkeypatch):
    dataset = opened(SharedMemory(Communicator(MPI.COMM_SELF)), Numbers([3, 3]), 4)
    monkeypatch.setattr(dataset, "_write", None)
    dataset.begin_epoch(0, 0)
    with pytest.raises(TypeError):
        dataset.batch(0, 2)


def test_a_file_that_changes_its_length_is_told():
    dataset = opened(SharedMemory(Communicator(MPI.COMM_SELF)), Numbers([3, 3]), 4)
    dataset._blocks = Numbers([3, 3])
    dataset.begin_epoch(0, 0, shuffle=False)
    dataset._blocks.read = lambda block: iter(())
    with pytest.raises(InputError, match="changed while it was read"):
        dataset.batch(0, 2)


def test_memory_is_two_windows_whatever_the_rows():
    for rows in (10**6, 10**9):
        sizes = WindowSizes(rows, 1000, 50)
        specs = window_specs(sizes, RowLayout(20, 1, 0, np.float32))
        assert sum(spec.bytes for spec in specs) < 2 * 1050 * (21 * 4 + 4 + 8) + 6 * 4096
