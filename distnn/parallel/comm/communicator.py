"""The ranks of one run, and the nodes they stand on.

Ranks are numbered so that those of one node follow one another, whatever order the launcher used;
slices are contiguous runs of ranks, so that each node owns one run too. Rank 0 stays rank 0.

Every method here but `complete` is collective: all ranks call it, in the same order, and take the
same path.
"""

import functools
import json
import logging
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from distnn.errors import DistnnError, DivergenceError, InputError, StopRequested
from distnn.parallel.comm.mpi import MPI
from distnn.parallel.comm.status import RankStatus

log = logging.getLogger(__name__)

KINDS = {kind.exit_code: kind for kind in (DistnnError, InputError, DivergenceError, StopRequested)}
SHARED_MEMORY = "/dev/shm"  # where MPICH and Open MPI keep their shared windows on Linux

POLLS = 100  # some 50 us
NAP = 0.0005  # seconds

Method = TypeVar("Method", bound=Callable[..., Any])
Result = TypeVar("Result")


def _waits(method: Method) -> Method:
    """A method in which a rank waits for the others."""

    @functools.wraps(method)
    def waiting(self: "Communicator", *args: Any, **kwargs: Any) -> Any:
        with self.status.waiting():
            return method(self, *args, **kwargs)

    return cast("Method", waiting)


class Communicator:
    """The communicator of a run, cut into nodes.

    Args:
        comm: an MPI communicator; None means all ranks. It is duplicated, so that no message of
            the caller's can meet one of ours.
        shared: False makes every rank a node of its own, for machines without shared memory.

    Attributes:
        rank, size: this rank among all.
        node, nodes: this rank's node among the nodes.
        node_rank, node_size: this rank among those of its node; node_rank 0 is the leader.
        node_ranks: for every node, its first rank and one past its last.
        mpi: the mpi4py communicator of all ranks, in this order.
        node_comm, leader_comm: of this node's ranks; of all leaders, None on other ranks.
        status: where this rank is in its work, for others to see.
    """

    def __init__(self, comm: "MPI.Comm | None" = None, *, shared: bool = True) -> None:
        base = MPI.COMM_WORLD if comm is None else comm
        self._base, self.status = base, RankStatus()
        node_comm = _node_communicator(base, shared)
        first = np.array(base.rank)
        node_comm.Bcast(first)  # the leader's rank names the node
        self.mpi: MPI.Comm = base.Split(0, int(first) * base.size + base.rank)
        self._ending = self.mpi.Dup()  # of its own: nothing else may be matched there
        self.node_comm: MPI.Comm = node_comm
        self.rank, self.size = self.mpi.rank, self.mpi.size
        self.node_rank, self.node_size = node_comm.rank, node_comm.size
        sizes = np.zeros(self.size, np.int64)
        sizes[self.rank] = self.node_size if self.node_rank == 0 else 0
        _await(self.mpi.Iallreduce(MPI.IN_PLACE, sizes))
        starts = np.flatnonzero(sizes).tolist()
        self.node_ranks = [(start, start + int(sizes[start])) for start in starts]
        self.nodes = len(starts)
        self.node = starts.index(self.rank - self.node_rank)
        self.leader_comm: MPI.Comm | None = _communicator_or_none(
            self.mpi.Split(0 if self.node_rank == 0 else MPI.UNDEFINED, self.rank)
        )

    def free(self) -> None:
        """Give the communicators back. Collective; the comm cannot be used afterwards."""
        for comm in (self.mpi, self._ending, self.node_comm, self.leader_comm):
            if comm is not None:
                comm.Free()

    @property
    def host(self) -> str:
        """The name of the machine that this rank runs on."""
        return MPI.Get_processor_name()

    @property
    def callers_rank(self) -> int:
        """This rank's number in the communicator that was given."""
        return self._base.rank

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, the one that speaks, reads and writes."""
        return self.rank == 0

    def with_memory(self, node_bytes: int) -> "Communicator":
        """This comm, or one without shared memory if a node has no room for `node_bytes`.

        A window that does not fit into the machine's shared memory would not be refused but kill
        the rank that first touches a page too many, so the room is looked at before.

        Args:
            node_bytes: what one node is going to share, in bytes.

        Raises:
            InputError: on every rank, if that is more than a whole machine has.
        """
        if self.largest(node_bytes - machine_memory()) > 0:
            raise InputError(
                f"needs {node_bytes >> 30} GB on one machine, more than all of its memory",
                "data, weights and gradients",
                "use fewer or smaller --hidden layers, less data, or more machines",
            )
        if self.nodes == self.size:
            return self  # nothing is shared
        room = shared_memory_room()
        missing = self.largest(node_bytes - room if self.node_size > 1 else 0)
        if missing <= 0:
            return self
        if self.is_first:
            log.warning(
                "shared memory (%s) is %d MB too small for data, weights and gradients; "
                "going on without it, with a copy per rank",
                SHARED_MEMORY,
                -(-missing >> 20),
            )
        comm = Communicator(self._base, shared=False)
        comm.status = self.status
        return comm

    @_waits
    def broadcast(self, value: Any) -> Any:
        """Rank 0's `value` on every rank; anything JSON can hold, floats to the last bit."""
        text = json.dumps(value).encode() if self.is_first else b""
        size = np.array(len(text))
        _await(self.mpi.Ibcast(size))
        buffer = np.empty(int(size), np.uint8)
        if self.is_first:
            buffer[:] = np.frombuffer(text, np.uint8)
        self.mpi.Bcast(buffer)
        return json.loads(buffer.tobytes())

    def on_first(self, work: Callable[[], Result]) -> Result | None:
        """Run `work` on rank 0 alone; its error rises on every rank.

        Returns:
            The result on rank 0, None elsewhere. What all ranks must know of it is given to
            `broadcast`.

        Raises:
            DistnnError: on every rank the one that `work` raised on rank 0, or one with the same
                text and exit code. Other exceptions rise on rank 0 only and end the job.
        """
        result, error = None, None
        if self.is_first:
            try:
                with self.status.working():
                    result = work()
            except DistnnError as caught:
                error = caught
        problem = self.broadcast(None if error is None else [error.exit_code, str(error)])
        if error is not None:
            raise error
        if problem is not None:
            code, message = problem
            raise KINDS[code](message)
        return result

    @_waits
    def agree(self, problem: DistnnError | None) -> None:
        """Raise on every rank if any rank has a problem; the lowest rank's is the one told.

        Raises:
            InputError: the lowest such rank's problem.
        """
        culprit = np.array(self.size if problem is None else self.rank)
        _await(self.mpi.Iallreduce(MPI.IN_PLACE, culprit, MPI.MIN))
        if int(culprit) == self.size:
            return
        text = str(problem).encode() if self.rank == int(culprit) else b""
        size = np.array(len(text))
        self.mpi.Bcast(size, int(culprit))
        buffer = np.frombuffer(text, np.uint8).copy() if text else np.empty(int(size), np.uint8)
        self.mpi.Bcast(buffer, int(culprit))
        if problem is not None and self.rank == int(culprit):
            raise problem
        raise InputError(buffer.tobytes().decode())

    def all_here(self, seconds: float) -> bool:
        """Whether every rank gets here within some time. To be called once."""
        request = self._ending.Ibarrier()
        until = time.monotonic() + seconds
        while not request.Test():
            if time.monotonic() > until:
                return False
            time.sleep(0.001)
        return True

    @_waits
    def complete(self, requests: "list[MPI.Request]") -> None:
        """Wait for messages, as quickly as MPI itself does, but not for a rank that has failed.

        Raises:
            RankFailed: a rank has failed meanwhile.
        """
        polls = 0
        while not MPI.Request.Testall(requests):
            os.sched_yield()
            polls += 1
            if polls % POLLS == 0:
                self.status.check()

    @_waits
    def largest(self, value: int) -> int:
        """The largest of all ranks' values."""
        values = np.array(value, np.int64)
        _await(self.mpi.Iallreduce(MPI.IN_PLACE, values, MPI.MAX))
        return int(values)

    @_waits
    def total(self, value: int) -> int:
        """The sum of all ranks' values."""
        values = np.array(value, np.int64)
        _await(self.mpi.Iallreduce(MPI.IN_PLACE, values))
        return int(values)

    @_waits
    def all_equal(self, value: int) -> bool:
        """Whether all ranks have the same value (of less than 63 bits)."""
        ends = np.array([value, -value], np.int64)
        _await(self.mpi.Iallreduce(MPI.IN_PLACE, ends, MPI.MAX))
        return int(ends[0]) == -int(ends[1])

    @_waits
    def extents(self, count: int) -> list[tuple[int, int]]:
        """Where each rank's items stand if all are laid out in the order of the caller's ranks.

        Args:
            count: how many items this rank has.

        Returns:
            First and one-past-last item of every rank of this comm.
        """
        counts = np.zeros(self.size, np.int64)
        counts[self._base.rank] = count
        _await(self._base.Iallreduce(MPI.IN_PLACE, counts))
        callers = np.zeros(self.size, np.int64)
        callers[self.rank] = self._base.rank
        self.mpi.Allreduce(MPI.IN_PLACE, callers)
        ends = np.cumsum(counts)
        return [(int(ends[c] - counts[c]), int(ends[c])) for c in callers]

    def node_of(self, rank: int) -> int:
        """The node that `rank` stands on."""
        return next(node for node, (_, end) in enumerate(self.node_ranks) if rank < end)

    @_waits
    def broadcast_among_leaders(self, array: np.ndarray, node: int = 0) -> None:
        """Send one node's contiguous `array` to the same array of every other node."""
        _await(self.node_comm.Ibarrier())
        if self.leader_comm is not None and self.nodes > 1:
            flat = array.reshape(-1)
            block = (1 << 28) // max(1, flat.itemsize)  # counts stay below MPI's 2**31
            for start in range(0, flat.size, block):
                self.leader_comm.Bcast(flat[start : start + block], node)
        _await(self.node_comm.Ibarrier())

    @_waits
    def gather_texts(self, text: str) -> list[str] | None:
        """The texts of all ranks in rank order, on rank 0; None elsewhere."""
        own = np.frombuffer(text.encode(), np.uint8).copy()
        sizes = np.zeros(self.size, np.int64)
        sizes[self.rank] = len(own)
        self.mpi.Allreduce(MPI.IN_PLACE, sizes)
        whole = np.empty(int(sizes.sum()), np.uint8) if self.is_first else None
        self.mpi.Gatherv(own, None if whole is None else [whole, sizes.tolist()])
        if whole is None:
            return None
        return [part.tobytes().decode() for part in np.split(whole, np.cumsum(sizes)[:-1])]

    @_waits
    def gather(self, values: np.ndarray, counts: list[int]) -> np.ndarray | None:
        """The float64 `values` of all ranks in rank order, on rank 0; None elsewhere.

        Args:
            values: this rank's values, as many as ``counts[rank]``.
            counts: how many values each rank has; the same list on every rank.
        """
        whole = np.empty(sum(counts), np.float64) if self.is_first else None
        receive = None if whole is None else [whole, counts]
        self.mpi.Gatherv(np.ascontiguousarray(values, np.float64), receive)
        return whole


def _await(request: "MPI.Request") -> None:
    """Wait, and leave the core to the rank that is waited for: it may be at work for long.

    MPI itself polls all the time. With more ranks than cores that would slow down the one at work.
    """
    for _ in range(POLLS):
        if request.Test():
            return
    while not request.Test():
        time.sleep(NAP)


def shared_memory_room() -> int:
    """Free bytes of this machine's shared memory."""
    try:
        disk = os.statvfs(SHARED_MEMORY)
    except OSError:
        return 0
    return disk.f_bavail * disk.f_frsize


def machine_memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _node_communicator(base: "MPI.Comm", shared: bool) -> "MPI.Comm":
    if shared:
        return base.Split_type(MPI.COMM_TYPE_SHARED, base.rank)
    return base.Split(base.rank)


def _communicator_or_none(comm: "MPI.Comm") -> "MPI.Comm | None":
    return None if comm == MPI.COMM_NULL else comm
