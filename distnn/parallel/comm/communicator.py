"""The ranks of one run, and the nodes they run on.

Ranks are numbered so that those of one node follow one another, whatever order the launcher used;
slices are contiguous runs of ranks, so that each node owns one run too. Rank 0 stays rank 0.

Every method but `complete` and `node_of` is collective: all ranks call it, in the same order, and
take the same path.
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
    """The ranks of an MPI communicator, divided into nodes.

    Args:
        base: an MPI communicator; None means all ranks. It is duplicated, so that the caller's
            messages and ours are kept apart.
        shared: False makes every rank a node of its own, for machines without shared memory.

    Attributes:
        rank, size: this rank among all.
        node, nodes: this rank's node among the nodes.
        node_rank, node_size: this rank among those of its node; node_rank 0 is the leader.
        node_ranks: for every node, its first rank and one past its last.
        mpi: the mpi4py communicator of all ranks, in this order.
        node_comm, leader_comm: of this node's ranks; of all leaders, None on other ranks.
        status: where this rank is in its work, for others to see.
        kept: what others keep by a name as long as this one is used; `free` closes it.
    """

    def __init__(self, base: "MPI.Comm | None" = None, *, shared: bool = True) -> None:
        base = MPI.COMM_WORLD if base is None else base
        self._base, self.status = base, RankStatus()
        self._unshared: Communicator | None = None
        self.kept: dict[str, Any] = {}
        node_comm = _node_communicator(base, shared)
        first = np.array(base.rank)
        node_comm.Bcast(first)  # the leader's rank names the node
        self.mpi: MPI.Comm = base.Split(0, int(first) * base.size + base.rank)
        self._ending = self.mpi.Dup()  # for `all_arrive` alone
        self.node_comm: MPI.Comm = node_comm
        self.rank, self.size = self.mpi.rank, self.mpi.size
        self.node_rank, self.node_size = node_comm.rank, node_comm.size
        sizes = self._of_each_rank(self.node_size if self.node_rank == 0 else 0)
        starts = np.flatnonzero(sizes).tolist()
        self.node_ranks = [(start, start + int(sizes[start])) for start in starts]
        self.nodes = len(starts)
        self.node = starts.index(self.rank - self.node_rank)
        leaders = self.mpi.Split(0 if self.node_rank == 0 else MPI.UNDEFINED, self.rank)
        self.leader_comm: MPI.Comm | None = None if leaders == MPI.COMM_NULL else leaders

    def free(self) -> None:
        """Give the MPI communicators back; this one cannot be used afterwards."""
        for one in self.kept.values():
            one.close()
        for comm in (self.mpi, self._ending, self.node_comm, self.leader_comm):
            if comm is not None:
                comm.Free()
        if self._unshared is not None:
            self._unshared.free()

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
        """Whether this is rank 0, the one that reads, prints and writes."""
        return self.rank == 0

    def node_of(self, rank: int) -> int:
        """The node that `rank` runs on."""
        return next(node for node, (_, end) in enumerate(self.node_ranks) if rank < end)

    def with_memory(self, node_bytes: int) -> "Communicator":
        """This one, or one without shared memory if a node has no room for `node_bytes`.

        A window that does not fit into the machine's shared memory would not be refused but kill
        the rank that first touches a page too many, so the room is looked at before. The other
        communicator is made once, and freed with this one.

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
        if self._unshared is None:
            self._unshared = Communicator(self._base, shared=False)
            self._unshared.status = self.status
        return self._unshared

    @_waits
    def broadcast(self, value: Any) -> Any:
        """Rank 0's `value` on every rank; anything JSON can hold, floats to the last bit."""
        return json.loads(self._broadcast_text(json.dumps(value) if self.is_first else ""))

    def on_first(self, work: Callable[[], Result]) -> Result | None:
        """Run `work` on rank 0 alone; its error is raised on every rank.

        Returns:
            The result on rank 0, None elsewhere. What all ranks must know of it is given to
            `broadcast`.

        Raises:
            DistnnError: on every rank the one that `work` raised on rank 0, or one with the same
                text and exit code. Other exceptions are raised on rank 0 only and end the job.
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
        """Raise on every rank if any rank has a problem.

        Raises:
            InputError: the problem of the lowest such rank.
        """
        culprit = -self.largest(-self.size if problem is None else -self.rank)
        if culprit == self.size:
            return
        text = self._broadcast_text(str(problem), culprit)
        if problem is not None and self.rank == culprit:
            raise problem
        raise InputError(text)

    def all_arrive(self, seconds: float) -> bool:
        """Whether every rank calls this within some time; not to be called again if not."""
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

    def largest(self, value: int) -> int:
        """The largest of all ranks' values."""
        return int(self._allreduce(value, MPI.MAX))

    def total(self, value: int) -> int:
        """The sum of all ranks' values."""
        return int(self._allreduce(value, MPI.SUM))

    def all_equal(self, value: int) -> bool:
        """Whether all ranks have the same value (of less than 63 bits)."""
        largest, smallest = self._allreduce([value, -value], MPI.MAX).tolist()
        return largest == -smallest

    @_waits
    def extents(self, count: int) -> list[tuple[int, int]]:
        """Where each rank's items are if all are laid out in the order of the caller's ranks.

        Args:
            count: how many items this rank has.

        Returns:
            First and one-past-last item of every rank of this communicator.
        """
        counts, callers = self._of_each_rank(count), self._of_each_rank(self._base.rank)
        ends = np.cumsum(counts[np.argsort(callers)])[callers]
        return [(int(end - count), int(end)) for end, count in zip(ends, counts, strict=True)]

    @_waits
    def broadcast_among_leaders(self, array: np.ndarray, node: int = 0) -> None:
        """Send one node's contiguous `array` to the same array of every other node."""
        _wait_for(self.node_comm.Ibarrier())
        if self.leader_comm is not None and self.nodes > 1:
            flat = array.reshape(-1)
            block = (1 << 28) // max(1, flat.itemsize)  # counts stay below MPI's 2**31
            for start in range(0, flat.size, block):
                self.leader_comm.Bcast(flat[start : start + block], node)
        _wait_for(self.node_comm.Ibarrier())

    def gather_texts(self, text: str) -> list[str] | None:
        """The texts of all ranks in rank order, on rank 0; None elsewhere."""
        data = np.frombuffer(text.encode(), np.uint8)
        sizes = self._of_each_rank(len(data))
        whole = self.gather(data, sizes.tolist())
        if whole is None:
            return None
        return [part.tobytes().decode() for part in np.split(whole, np.cumsum(sizes)[:-1])]

    @_waits
    def gather(self, values: np.ndarray, counts: list[int]) -> np.ndarray | None:
        """The `values` of all ranks in rank order, on rank 0; None elsewhere.

        Args:
            values: this rank's values, as many as ``counts[rank]``, of one dtype on all ranks.
            counts: how many values each rank has; the same list on every rank.
        """
        whole = np.empty(sum(counts), values.dtype) if self.is_first else None
        receive = None if whole is None else [whole, counts]
        self.mpi.Gatherv(np.ascontiguousarray(values), receive)
        return whole

    @_waits
    def _allreduce(self, values: Any, operation: "MPI.Op") -> np.ndarray:
        """int64 numbers of all ranks, combined."""
        result = np.array(values, np.int64)
        _wait_for(self.mpi.Iallreduce(MPI.IN_PLACE, result, operation))
        return result

    def _of_each_rank(self, value: int) -> np.ndarray:
        """(size,) the values of all ranks."""
        values = np.zeros(self.size, np.int64)
        values[self.rank] = value
        return self._allreduce(values, MPI.SUM)

    def _broadcast_text(self, text: str, root: int = 0) -> str:
        data = np.frombuffer(text.encode(), np.uint8)
        size = np.array(len(data))
        _wait_for(self.mpi.Ibcast(size, root))
        data = data.copy() if self.rank == root else np.empty(int(size), np.uint8)
        self.mpi.Bcast(data, root)
        return data.tobytes().decode()


def mpi_of(comm: Any) -> "MPI.Intracomm":
    """The MPI communicator of what a caller gave: mpi4py's, a Communicator, None for all ranks.

    Raises:
        InputError: not a communicator of one group of ranks.
    """
    base = MPI.COMM_WORLD if comm is None else comm.mpi if isinstance(comm, Communicator) else comm
    if not isinstance(base, MPI.Intracomm) or base == MPI.COMM_NULL:
        what = f"{type(base).__name__} is no communicator that this rank belongs to"
        raise InputError(what, "comm", "give one of mpi4py's, or None for all ranks")
    return base


def communicator_of(base: Any) -> Communicator:
    """The Communicator of an MPI communicator; None means all ranks. Collective.

    It is made at the first call, kept with the MPI communicator and freed with it: each needs
    several of MPI's own, of which an MPI has a few thousand, and a program may make many trainers.

    Raises:
        InputError: not a communicator of one group of ranks.
    """
    base = mpi_of(base)
    made: Any = base.Get_attr(_KEY)
    if made is None:
        made = Communicator(base)
        base.Set_attr(_KEY, made)
    return made


def alone() -> Communicator:
    """This process on its own, whatever the number of ranks."""
    return communicator_of(MPI.COMM_SELF)


def _free(base: "MPI.Comm", key: int, made: Communicator) -> None:
    if not MPI.Is_finalized():
        made.free()


_KEY = MPI.Comm.Create_keyval(delete_fn=_free)


def mpi_library() -> str:
    """The MPI library and its version, one line."""
    return MPI.Get_library_version().replace("\0", "").split("\n")[0].strip()


def finalize() -> None:
    """End MPI in this process. Collective: all ranks of the program wait for one another."""
    MPI.Finalize()


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


def _wait_for(request: "MPI.Request") -> None:
    """Wait, and leave the core to the rank that is waited for: it may be at work for long.

    MPI itself polls all the time. With more ranks than cores that would slow down the one at work.
    """
    for _ in range(POLLS):
        if request.Test():
            return
    while not request.Test():
        time.sleep(NAP)


def _node_communicator(base: "MPI.Comm", shared: bool) -> "MPI.Comm":
    if shared:
        return base.Split_type(MPI.COMM_TYPE_SHARED, base.rank)
    return base.Split(base.rank)
