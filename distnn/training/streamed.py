"""A training set that is read anew in every epoch: of its rows, two windows are in memory.

While the ranks train on one window, a thread beside each rank of a node reads its share of the next
one into memory that the node shares. All ranks meet twice for each window: before its first row is
used, so that all of it is there and an error of one thread is raised on every rank, and before it
is overwritten, so that no rank still reads it.
"""

import threading
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distnn.data.order import window_order, windows
from distnn.errors import InputError
from distnn.parallel.comm.shared_memory import ArraySpec, SharedMemory
from distnn.training.dataset import Dataset, Order, RowLayout, array_specs, order_spec

if TYPE_CHECKING:
    from distnn.data.blocks import Blocks, Piece

Array = NDArray[Any]
Key = tuple[int, int]  # epoch and window

Writer = Callable[["Piece", Array, Array, "Array | None"], None]
"""Writes a piece's rows, targets and weights, scaled, into X, T and weights of as many rows."""


@dataclass(frozen=True)
class WindowSizes:
    """How much of a data set is in memory.

    Attributes:
        rows: of all windows.
        least: rows of a window, but for the last one.
        block: rows of the largest block.
    """

    rows: int
    least: int
    block: int

    @property
    def capacity(self) -> int:
        """Rows that one window may have."""
        return min(self.rows, self.least - 1 + self.block)


def window_specs(sizes: WindowSizes, row: RowLayout) -> tuple[ArraySpec, ...]:
    """What a node shares: the order of two windows, and their rows as `array_specs` has them."""
    rows = 2 * sizes.capacity
    return order_spec(rows), *array_specs(rows, row)


class StreamedDataset(Dataset):
    """Two windows of a data set, in the memory that all ranks of a node share.

    Every method but `gather` and `close` is collective over all ranks.

    Args:
        memory: where the windows are.
        arrays: as many as `window_specs` has.
        classes: as of `Dataset`.

    Attributes:
        X, T, weights: two windows of `sizes.capacity` rows each, one behind the other.
    """

    def __init__(
        self, memory: SharedMemory, arrays: list[Array], sizes: WindowSizes, classes: int
    ) -> None:
        self._order, X, T, *weights = arrays
        super().__init__(X, T, classes, weights[0] if weights else None)
        self._memory, self._comm, self.sizes = memory, memory.comm, sizes
        self._total_weight = float(sizes.rows)
        self._blocks: Blocks
        self._write: Writer
        self._seed, self._shuffle, self._epoch = 0, True, -1
        self._windows: list[NDArray[np.intp]] = []  # of the epoch: the blocks of each
        self._starts: list[int] = []  # where in the epoch each begins
        self._slots: list[Key | None] = [None, None]  # which window each half holds
        self._reading: tuple[Key, int] | None = None  # and into which half
        self._thread: threading.Thread | None = None
        self._problem: Exception | None = None
        self._stopped = False

    def __len__(self) -> int:
        return self.sizes.rows

    @property
    def total_weight(self) -> float:
        """See `Dataset.total_weight`."""
        return self._total_weight

    def begin(self, blocks: "Blocks", write: Writer, total_weight: float) -> None:
        """Say what is read, on every rank."""
        self._blocks, self._write, self._total_weight = blocks, write, total_weight

    def order(self, memory: SharedMemory) -> Order:
        """Its own: rows are asked for by where in its windows they are."""
        return self

    def begin_epoch(self, seed: int, epoch: int, shuffle: bool = True) -> None:
        """The batches of this epoch are asked for from now on."""
        self._seed, self._shuffle, self._epoch = seed, shuffle, epoch
        self._windows = self._windows_of(epoch)
        sizes = [self._rows_of(window) for window in self._windows]
        self._starts = np.cumsum([0, *sizes])[:-1].tolist()

    def batch(self, start: int, end: int) -> NDArray[np.intp]:
        """Where in X the rows start … end of the epoch's order are, for `gather`.

        Args:
            end: no more than the epoch has, nor more than `sizes.least` behind the start.

        Raises:
            InputError: on every rank, if a thread of one could not read its part.
        """
        end = min(end, len(self))
        first = bisect_right(self._starts, start) - 1
        last = bisect_right(self._starts, end - 1) - 1
        for window in range(first, last + 1):
            if (self._epoch, window) not in self._slots:
                self._fetch((self._epoch, window))
        if first == last and self._reading is None:
            self._read_ahead(last)
        parts = [self._part(window, start, end) for window in range(first, last + 1)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def close(self) -> None:
        """End the thread of this rank; the memory may be given back when all ranks have done so."""
        self._stopped = True
        if self._thread is not None:
            self._thread.join()

    def _part(self, window: int, start: int, end: int) -> NDArray[np.intp]:
        slot, first = self._slots.index((self._epoch, window)), self._starts[window]
        rows = self._rows_of(self._windows[window])
        lo, hi = max(0, start - first), min(rows, end - first)
        offset = slot * self.sizes.capacity
        return self._order[offset + lo : offset + hi]

    def _read_ahead(self, window: int) -> None:
        """Start to read the window behind this one, which is the only one in use."""
        is_last = window + 1 == len(self._windows)
        following = (self._epoch + 1, 0) if is_last else (self._epoch, window + 1)
        if following not in self._slots:
            self._start(following, 1 - self._slots.index((self._epoch, window)))

    def _fetch(self, key: Key) -> None:
        """Have a window in memory; it has been read ahead but for the first one of a training."""
        if self._reading is not None and self._reading[0] != key:
            self._finish()
        if self._reading is None and key not in self._slots:
            before = (key[0], key[1] - 1)
            self._start(key, 1 - self._slots.index(before) if before in self._slots else 0)
        if self._reading is not None:
            self._finish()

    def _start(self, key: Key, slot: int) -> None:
        """Overwrite a half with another window, when no rank reads it any more."""
        self._comm.agree(None)
        self._slots[slot], self._reading = None, (key, slot)
        work = (key, slot * self.sizes.capacity)
        self._thread = threading.Thread(
            target=self._read, args=work, name="distnn reader", daemon=True
        )
        self._thread.start()

    def _finish(self) -> None:
        """Wait until the window that is being read is there, on every rank.

        Raises:
            InputError: on every rank, if one could not read its part.
        """
        assert self._reading is not None
        assert self._thread is not None
        self._comm.status.enter("reading of data")
        self._thread.join()
        self._thread = None
        if self._problem is not None and not isinstance(self._problem, InputError):
            raise self._problem
        self._memory.sync()
        self._comm.agree(self._problem)
        self._memory.sync()
        key, slot = self._reading
        self._slots[slot], self._reading = key, None
        self._comm.status.enter("step")

    def _read(self, key: Key, offset: int) -> None:
        """In the thread: this rank's share of a window, and on the leader its order."""
        epoch, number = key
        try:
            with np.errstate(all="ignore"):  # what is not finite is looked for
                blocks = self._windows_of(epoch)[number].tolist()
                start = offset
                for k, block in enumerate(blocks, number):
                    if k % self._comm.node_size == self._comm.node_rank:
                        self._read_block(block, start)
                    start += self._blocks.sizes[block]
                if self._comm.node_rank == 0:
                    self._draw(key, self._order[offset:start])
                    self._order[offset:start] += offset
        except Exception as problem:
            self._problem = problem

    def _read_block(self, block: int, start: int) -> None:
        end = start + self._blocks.sizes[block]
        for piece in self._blocks.read(block):
            if self._stopped:
                return
            rows = slice(start, start + len(piece.x))
            if rows.stop > end:
                break
            weights = None if self.weights is None else self.weights[rows]
            self._comm.status.moved()  # reading may take longer than a rank may stand still
            self._write(piece, self.X[rows], self.T[rows], weights)
            start = rows.stop
        if start != end:
            raise InputError("changed while it was read", self._blocks.where, "start again")

    def _draw(self, key: Key, out: NDArray[np.intp]) -> None:
        if self._shuffle:
            window_order(len(out), self._seed, *key, out)
        else:
            out[:] = np.arange(len(out))

    def _windows_of(self, epoch: int) -> list[NDArray[np.intp]]:
        seed = self._seed if self._shuffle else None
        return windows(self._blocks.sizes, self.sizes.least, seed, epoch)

    def _rows_of(self, window: NDArray[np.intp]) -> int:
        return sum(self._blocks.sizes[block] for block in window.tolist())
