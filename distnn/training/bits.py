"""What a run's bits depend on besides its config, and what is told of it.

The same config and slices give the same bits on any number of ranks as long as the gradients are
summed in order, by the same builds on the same kind of machine. Where that does not hold, one line
says so, and training goes on.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from distnn.errors import InputError
from distnn.nn import products
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.reduction.strategies import SAME_ON_ANY_RANKS
from distnn.run.fingerprint import differences, fingerprint


def agree_on_blas(comm: Communicator, wish: str) -> None:
    """Every rank multiplies matrices with what `wish` means on rank 0. Collective.

    Raises:
        InputError: on every rank, if a rank does not have it.
    """
    name = comm.broadcast(comm.on_first(lambda: products.chosen(wish)))
    problem = None
    try:
        products.use(name)
    except InputError as error:
        problem = error
    comm.agree(problem)


def facts(reduce: str, ranks: int) -> dict[str, Any]:
    """What the summary and every checkpoint say of it."""
    return {"reduce": reduce, "ranks": ranks, "depends_on_ranks": reduce not in SAME_ON_ANY_RANKS}


def told_at_start(here: Mapping[str, Any], recorded: Mapping[str, Any] | None) -> list[str]:
    """The lines to tell when a run starts or goes on.

    Args:
        here: `facts` of this run, and its ``fingerprint``.
        recorded: the metadata of the checkpoint that it goes on from, if there is one.
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
        lines.append(f"bits may differ from those of a run without a stop: {'; '.join(changes)}")
    return lines


def told_of_mixed_ranks(comm: Communicator) -> str:
    """One line on rank 0 if ranks differ in what bits depend on, else nothing. Collective.

    It costs one small message; only if it finds a difference, more is sent.
    """
    if comm.size == 1:
        return ""
    own = fingerprint(products.in_use())
    text = json.dumps(own, sort_keys=True)
    if comm.all_equal(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])):
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
