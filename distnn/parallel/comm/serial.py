"""What stands in for MPI in a program of one process, on a machine without it.

Only what one rank asks of the ranks of its communicator is here, under mpi4py's names: each of
these calls ends at once, and its result is what the rank gave. It stands where the module
``mpi4py.MPI`` does, see `distnn.parallel.comm.mpi`.
"""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

UNDEFINED = -32766
THREAD_SINGLE, THREAD_MULTIPLE = 0, 3
IN_PLACE, MAX, SUM, COMM_TYPE_SHARED, ERRORS_RETURN = "in place", "max", "sum", "shared", "return"


class Request:
    """A message of nobody to nobody: it is complete."""

    def Test(self) -> bool:
        """Whether it is complete."""
        return True

    @staticmethod
    def Testall(requests: Sequence["Request"]) -> bool:
        """Whether all are."""
        return True


Prequest = Request


class Win:
    """Never made: a rank alone shares its memory with nobody."""


class Comm:
    """A communicator of this process alone."""

    rank, size = 0, 1
    _keys = count(1)

    def __init__(self) -> None:
        self._attributes: dict[int, Any] = {}

    def Split(self, color: int = 0, key: int = 0) -> "Comm":
        """Another communicator of this process, or `COMM_NULL`."""
        return COMM_NULL if color == UNDEFINED else Intracomm()

    def Split_type(self, kind: Any, key: int = 0) -> "Comm":
        """Another communicator of this process."""
        return Intracomm()

    def Dup(self) -> "Comm":
        """Another communicator of this process."""
        return Intracomm()

    def Free(self) -> None:
        """Nothing is to be given back."""

    def Barrier(self) -> None:
        """Everybody is here."""

    def Ibarrier(self) -> Request:
        """See `Barrier`."""
        return Request()

    def Bcast(self, buffer: Any, root: int = 0) -> None:
        """The buffer is that of its sender."""

    def Ibcast(self, buffer: Any, root: int = 0) -> Request:
        """See `Bcast`."""
        return Request()

    def Allreduce(self, sent: Any, received: Any, op: Any = SUM) -> None:
        """The sum of one, or the largest of one."""
        if sent is not IN_PLACE:
            received[...] = sent

    def Iallreduce(self, sent: Any, received: Any, op: Any = SUM) -> Request:
        """See `Allreduce`."""
        self.Allreduce(sent, received, op)
        return Request()

    def Gatherv(self, sent: Any, received: Any, root: int = 0) -> None:
        """The values of one rank."""
        received[0][...] = sent

    @classmethod
    def Create_keyval(cls, delete_fn: Callable[..., None] | None = None) -> int:
        """A key for `Set_attr`. What it holds is not deleted before the process ends."""
        return next(cls._keys)

    def Set_attr(self, key: int, value: Any) -> None:
        """Keep something with this communicator."""
        self._attributes[key] = value

    def Get_attr(self, key: int) -> Any:
        """What is kept, or None."""
        return self._attributes.get(key)

    def Abort(self, code: int) -> None:
        """Leave the end of this process to the caller."""


class Intracomm(Comm):
    """The same: there is no other kind."""


COMM_WORLD, COMM_SELF, COMM_NULL = Intracomm(), Intracomm(), Intracomm()


def Get_processor_name() -> str:
    """The name of this machine."""
    import socket

    return socket.gethostname()


def Get_library_version() -> str:
    """What `distnn.doctor` prints."""
    return "no MPI (one process)"


def Query_thread() -> int:
    """No thread of MPI is there."""
    return THREAD_SINGLE


def Is_initialized() -> bool:
    """From the start."""
    return True


def Is_finalized() -> bool:
    """Never: nothing needs it."""
    return False


def Finalize() -> None:
    """Nothing is to be ended."""
