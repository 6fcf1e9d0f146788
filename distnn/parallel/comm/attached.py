"""One comm per communicator, however many trainings it does.

A comm takes communicators of its own, of which an MPI has a few thousand: a search that makes a
trainer for each of its candidates would use them up.
"""

from typing import Any

from distnn.errors import InputError
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI


def _free(base: "MPI.Comm", key: int, comm: Communicator) -> None:
    """The caller frees the communicator: so are the comm's, which were made from it."""
    if not MPI.Is_finalized():
        comm.free()


_KEY = MPI.Comm.Create_keyval(delete_fn=_free)


def communicator_of(comm: Any) -> Communicator:
    """The comm of an MPI communicator; None means all ranks. Collective.

    It is made at the first call, kept with the communicator, and freed with it.

    Raises:
        InputError: not a communicator of one group of ranks.
    """
    base = MPI.COMM_WORLD if comm is None else comm
    if not isinstance(base, MPI.Intracomm) or base == MPI.COMM_NULL:
        what = f"{type(comm).__name__} is no communicator that this rank belongs to"
        raise InputError(what, "comm", "give one of mpi4py's, or None for all ranks")
    known: Any = base.Get_attr(_KEY)
    made: Communicator = Communicator(base) if known is None else known
    if known is None:
        base.Set_attr(_KEY, made)
    return made
