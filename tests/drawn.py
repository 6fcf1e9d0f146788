"""Tests under mpirun of drawn values: rank 0 draws them, and all ranks check the same ones.

What hypothesis draws depends on more than its seed, for example on which modules are imported, and
these are not the same on all ranks.
"""

from collections.abc import Callable
from typing import TypeVar

from hypothesis import example, given, settings
from hypothesis import strategies as st

from distnn.parallel.comm.mpi import MPI

Value = TypeVar("Value")


def drawn(
    strategy: st.SearchStrategy[Value], *examples: Value, max_examples: int
) -> Callable[[Callable[[Value], None]], Callable[[], None]]:
    """Makes a test of a check of one value, which must fail on all ranks or on none."""

    def decorate(check: Callable[[Value], None]) -> Callable[[], None]:
        def test() -> None:
            if MPI.COMM_WORLD.rank == 0:
                _lead(check, strategy, examples, max_examples)
            else:
                _follow(check)

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return decorate


def _lead(
    check: Callable[[Value], None],
    strategy: st.SearchStrategy[Value],
    examples: tuple[Value, ...],
    max_examples: int,
) -> None:
    def on_all(value: Value) -> None:
        MPI.COMM_WORLD.bcast((value,))
        check(value)

    run = on_all
    for one in examples:
        run = example(one)(run)
    try:
        settings(max_examples=max_examples)(given(strategy)(run))()
    finally:
        MPI.COMM_WORLD.bcast(None)


def _follow(check: Callable[[Value], None]) -> None:
    failure = None
    while (message := MPI.COMM_WORLD.bcast(None)) is not None:
        try:
            check(message[0])
        except AssertionError as error:
            failure = error
    if failure is not None:
        raise failure
