"""A session taken apart: the same step, with a stopwatch around its organs.

The organs are replaced from outside, and put back, so that a step that nobody measures has no
hook in it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distnn.diagnostics.stopwatch import Stopwatch
from distnn.nn import products
from distnn.parallel.reduction import cache_lines, ordered_sum
from distnn.training.dataset import Dataset
from distnn.training.session import Session

PARTS = ("product", "elementwise", "wait", "sum", "update", "input", "rest")


@contextmanager
def opened(session: Session, samples: Dataset) -> Iterator[Stopwatch]:
    """Inside the context every step of the session is timed by its `PARTS`.

    product: matrix products; elementwise: the rest of the two passes; wait: for other ranks, and
    for their part of the work where one rank updates alone; sum: of gradients, with messages and
    claims; update: the optimizer's rule; input: the batch's rows; rest: what is between them. Where
    two nodes exchange beside the passes, only what the passes have to do for it and wait for is
    seen: sums and updates are another thread's, or part of the waiting.
    """
    watch = Stopwatch()
    barrier, exchange, passes = session.exchange.barrier, session.exchange, session.passes
    organs: list[tuple[Any, str, str]] = [
        (products, "product", "product"),
        (passes, "forward", "elementwise"),
        (passes, "backward", "elementwise"),
        (barrier, "wait_all", "wait"),
        (barrier, "wait_release", "wait"),
        (exchange, "add_up", "sum"),
        (exchange._reduction, "join", "sum"),
        (exchange, "_reduce", "sum"),
        (exchange, "_spread", "sum"),
        (ordered_sum, "run", "sum"),
        (cache_lines, "claim", "sum"),
        (cache_lines, "copy", "sum"),
        (samples, "gather", "input"),
        (session, "step", "rest"),
    ]
    beside = exchange.overlap
    if beside is not None:
        organs += [(beside, "begin", "sum"), (beside, "ready", "sum"), (beside, "need", "wait")]
    untimed = [(owner, name, vars(owner).get(name)) for owner, name, _ in organs]
    for owner, name, part in organs:
        setattr(owner, name, watch.around(part, getattr(owner, name)))
    rule_of_step = session._rule

    def timed_rule(*args: Any) -> Any:
        rule, scale = rule_of_step(*args)
        return watch.around("update", rule), scale

    if beside is None:  # a stopwatch is one thread's
        session._rule = timed_rule  # type: ignore[assignment, method-assign]
    watch.seconds |= dict.fromkeys(PARTS, 0.0)
    try:
        yield watch
    finally:
        vars(session).pop("_rule", None)
        for owner, name, before in untimed:
            delattr(owner, name) if before is None else setattr(owner, name, before)
