"""One team per communicator, however many trainings it does.

A team takes communicators of its own, of which an MPI has a few thousand: a search that makes a
trainer for each of its candidates would use them up.
"""

from typing import Any

from ..errors import InputError
from .mpi import MPI
from .team import Team


def _free(comm: "MPI.Comm", key: int, team: Team) -> None:
    """The caller frees the communicator: so are the team's, which were made from it."""
    if not MPI.Is_finalized():
        team.free()


_TEAM = MPI.Comm.Create_keyval(delete_fn=_free)


def team_of(comm: Any) -> Team:
    """The team of an MPI communicator; None means all ranks. Collective.

    It is made at the first call, kept with the communicator, and freed with it.

    Raises:
        InputError: not a communicator of one group of ranks.
    """
    base = MPI.COMM_WORLD if comm is None else comm
    if not isinstance(base, MPI.Intracomm) or base == MPI.COMM_NULL:
        what = f"{type(comm).__name__} is no communicator that this rank belongs to"
        raise InputError(what, "comm", "give one of mpi4py's, or None for all ranks")
    known: Any = base.Get_attr(_TEAM)
    team: Team = Team(base) if known is None else known
    if known is None:
        base.Set_attr(_TEAM, team)
    return team
