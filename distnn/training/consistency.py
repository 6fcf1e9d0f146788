"""Checks that ranks agree, and what is recorded and said of what bits depend on.

Ranks that disagree would otherwise be seen as a stall, or not at all. The same configuration and
slices give the same bits on any number of ranks as long as the gradients are summed in order, by
the same builds on the same kind of machine; where that does not hold, a message says so and
training goes on.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from distnn.config.options import TrainConfig
from distnn.errors import DistnnError, InputError, printable
from distnn.nn import products
from distnn.nn.optimizers import Optimizer
from distnn.parallel.comm.communicator import Communicator, communicator_of, mpi_of
from distnn.parallel.reduction.strategies import SAME_ON_ANY_RANKS
from distnn.parallel.watchdog.handshake import handshake
from distnn.run.fingerprint import differences, fingerprint

# Of rank 0's files and display, or, as the BLAS, taken from rank 0.
MAY_DIFFER = {
    "run_dir", "resume", "allow_changed_data", "keep", "progress", "stall_timeout", "blas",
}  # fmt: skip


@contextmanager
def agreed(
    base: Any,
    where: str,
    seconds: float,
    problem: DistnnError | None,
    values: Mapping[str, Any],
) -> Iterator[None]:
    """All ranks have come, none has a problem, and all were given the same. Collective.

    The ranks are guarded inside the context, too; see `handshake`.

    Args:
        base: an MPI communicator.
        where: what all are about to do, for messages.
        seconds: the stall timeout.
        problem: why this rank cannot go on; its values do not matter then.
        values: plain values that must be the same on every rank.

    Raises:
        InputError: on every rank, naming the rank and its problem, or what differs.
    """
    with handshake(base, where, seconds, problem, _digest(values)) as is_equal:
        if not is_equal:
            check_alike(base, values)
        yield


@contextmanager
def joined(
    comm: Any, where: str, seconds: float, problem: DistnnError | None, values: Mapping[str, Any]
) -> Iterator[Communicator]:
    """The communicator of a new trainer, once the ranks have `agreed`. Collective.

    Args:
        comm: an MPI communicator, one of distnn's, or None for all ranks of the program.
    """
    status = comm.status if isinstance(comm, Communicator) else None
    with (
        status.waiting() if status else nullcontext(),
        agreed(mpi_of(comm), where, seconds, problem, values),
    ):
        yield comm if isinstance(comm, Communicator) else communicator_of(comm)


def must_agree(
    config: TrainConfig, optimizer: Optimizer, on_failure: str, **others: Any
) -> dict[str, Any]:
    """What of a trainer must be the same on every rank: options, optimizer, what else it has."""
    options = {name: v for name, v in config.to_dict().items() if name not in MAY_DIFFER}
    rule = [optimizer.name, optimizer.config()]
    return options | {"optimizer": rule, "on_failure": on_failure, **others}


def check_alike(base: Any, values: Mapping[str, Any]) -> None:
    """Collective; raises an InputError on every rank that names what differs, and where."""
    for name, value in values.items():
        digests = base.allgather(_digest(value))
        odd = next((rank for rank, one in enumerate(digests) if one != digests[0]), None)
        if odd is not None:
            first, other = (base.bcast(repr(value), root) for root in (0, odd))
            what = f"differs between ranks: {first} on rank 0, {other} on rank {odd}"
            raise InputError(what, where=name, remedy="give every rank the same")


def check_run_dir(comm: Communicator, run_dir: str | None) -> None:
    """Collective; raises an InputError on every rank if only others than rank 0 have a directory.

    Rank 0 alone may have one: it writes.
    """
    given = 0 if run_dir is None else 1 + comm.is_first
    if comm.largest(given) == 1:
        what = "is given, but not on rank 0, which writes there"
        raise InputError(what, "run_dir", "give it on rank 0, or on every rank")


def check_rows(comm: Communicator, rows: int | None) -> None:
    """Collective; raises an InputError on every rank if some gave more rows than others.

    Args:
        rows: None where a rank gave none at all: rank 0's are used.
    """
    most = comm.largest(-1 if rows is None else rows)
    least = -comm.largest(-most if rows is None else -rows)
    if least != most:
        raise InputError(
            f"has {least} rows on one rank and {most} on another",
            where="X",
            remedy="give all rows on every rank, or with partitioned=True each rank its own",
        )


def count_rows(X: Any) -> int | None:
    """How many rows a rank gave; None where it gave none, or no array."""
    try:
        return len(X)
    except TypeError:  # None, or what is no array and refused later
        return None


def agree_on_blas(comm: Communicator, blas: str, precision: str) -> None:
    """Every rank multiplies matrices with what ``blas`` means on rank 0. Collective.

    Raises:
        InputError: on every rank, if a rank does not have it.
    """
    name = comm.broadcast(comm.on_first(lambda: products.chosen(blas, precision)))
    problem = None
    try:
        products.use(name)
    except InputError as error:
        problem = error
    comm.agree(problem)


def reduction_facts(reduce: str, ranks: int) -> dict[str, Any]:
    """What the summary and every checkpoint record of the sum over ranks."""
    return {"reduce": reduce, "ranks": ranks, "depends_on_ranks": reduce not in SAME_ON_ANY_RANKS}


def start_messages(here: Mapping[str, Any], recorded: Mapping[str, Any] | None) -> list[str]:
    """What is said of the bits when a run starts or is resumed.

    Args:
        here: `reduction_facts` of this run, and its ``fingerprint``.
        recorded: the metadata of the checkpoint that is resumed, if there is one.
    """
    lines = []
    before = {} if recorded is None else recorded
    if here["depends_on_ranks"]:
        then = before.get("ranks", here["ranks"])
        elsewhere = "" if then == here["ranks"] else f"; the run was on {then} so far"
        lines.append(
            f"with --reduce {here['reduce']} the bits of the result depend on the number of ranks, "
            f"{here['ranks']} here{elsewhere}"
        )
    changes = differences(here["fingerprint"], before.get("fingerprint", here["fingerprint"]))
    if changes:
        changed = printable("; ".join(changes))
        lines.append(f"bits may differ from those of a run without a stop: {changed}")
    return lines


def mixed_ranks_message(comm: Communicator) -> str:
    """One line on rank 0 if ranks differ in builds or machines, else nothing. Collective.

    It costs one small message; only if it finds a difference, more is sent.
    """
    if comm.size == 1:
        return ""
    own = fingerprint(products.in_use())
    if _equal(comm, own):
        return ""
    gathered = comm.gather_texts(json.dumps([comm.host, own]))
    if gathered is None:
        return ""
    odd: dict[str, list[str]] = {}
    for host, other in map(json.loads, gathered):
        changes = [
            f"{name} {other.get(name)} instead of {own.get(name)}"
            for name in own
            if other.get(name) != own.get(name)
        ]
        if changes:
            odd[host] = changes
    nodes = "; ".join(f"{host}: {', '.join(changes)}" for host, changes in odd.items())
    return f"the ranks differ, bits may depend on which rank does what: {nodes}"


def _equal(comm: Communicator, value: Any) -> bool:
    """Whether all ranks have equal plain values, by 56 bits of a digest. Collective."""
    return comm.all_equal(_digest(value))


def _digest(value: Any) -> int:
    """56 bits by which plain values are compared."""
    text = json.dumps(value, sort_keys=True, default=_plain)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])


def _plain(value: Any) -> Any:
    """A number of numpy's as Python's."""
    return value.item() if isinstance(value, np.generic) else str(value)
