"""Checks that ranks agree, and what is recorded and said of what bits depend on.

Ranks that disagree would otherwise be seen as a stall, or not at all. The same configuration and
slices give the same bits on any number of ranks as long as the gradients are summed in order, by
the same builds on the same kind of machine; where that does not hold, a message says so and
training goes on.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from distnn.config.options import TrainConfig
from distnn.errors import InputError, printable
from distnn.nn import products
from distnn.nn.network import Network
from distnn.nn.optimizers import Optimizer
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.reduction.strategies import SAME_ON_ANY_RANKS
from distnn.run.fingerprint import differences, fingerprint

# Of rank 0's files and display, or, as the BLAS, taken from rank 0.
MAY_DIFFER = {
    "run_dir", "resume", "allow_changed_data", "keep", "progress", "stall_timeout", "blas",
}  # fmt: skip


def check_fit(
    comm: Communicator,
    config: TrainConfig,
    network: Network,
    optimizer: Optimizer,
    X: Any,
    arguments: Mapping[str, Any],
) -> None:
    """Before a fit: its options, network, optimizer and rows. Collective: two small messages.

    Args:
        X: this rank's rows, not checked yet.
        arguments: what else must be the same, such as ``epochs`` and ``partitioned``; with the
            latter, each rank may have another number of rows.

    Raises:
        InputError: on every rank, naming what differs.
    """
    options = {name: v for name, v in config.to_dict().items() if name not in MAY_DIFFER}
    parts = {"network": network.config(), "optimizer": [optimizer.name, optimizer.config()]}
    check_alike(comm, options | parts | dict(arguments))
    if not arguments["partitioned"]:
        check_rows(comm, _count(X))


def check_alike(comm: Communicator, values: Mapping[str, Any]) -> None:
    """Collective; raises an InputError on every rank that names what differs."""
    if _equal(comm, values):
        return
    for name, value in values.items():  # one by one: only after a difference was found
        if not _equal(comm, value):
            what = f"differs between ranks: {value!r} on rank {comm.rank}"
            raise InputError(what, where=name, remedy="give every rank the same")


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


def agree_on_blas(comm: Communicator, blas: str) -> None:
    """Every rank multiplies matrices with what ``blas`` means on rank 0. Collective.

    Raises:
        InputError: on every rank, if a rank does not have it.
    """
    name = comm.broadcast(comm.on_first(lambda: products.chosen(blas)))
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


def _count(X: Any) -> int | None:
    try:
        return len(X)
    except TypeError:  # None, or what is no array and refused later
        return None


def _equal(comm: Communicator, value: Any) -> bool:
    """Whether all ranks have equal plain values, by 56 bits of a digest. Collective."""
    text = json.dumps(value, sort_keys=True, default=_plain)
    return comm.all_equal(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7]))


def _plain(value: Any) -> Any:
    """A number of numpy's as Python's."""
    return value.item() if isinstance(value, np.generic) else str(value)
