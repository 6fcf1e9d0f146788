"""Measure a step on this machine: ``[mpirun -n N] python -m distnn.bench [--networks ...]``.

For each network: the time of a step and what it is spent on, samples per second, and the limit
that the machine sets.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distnn.command import on_first, run

if TYPE_CHECKING:
    from distnn.parallel.comm.communicator import Communicator


def bench(comm: "Communicator", argv: Sequence[str]) -> None:
    """Measure as the arguments say, on all ranks of the comm."""
    from distnn.config.commands import BenchConfig
    from distnn.diagnostics.steps import Case, measure
    from distnn.nn import products
    from distnn.run.fingerprint import fingerprint
    from distnn.training.consistency import agree_on_blas
    from distnn.training.measures import write_measures

    options = comm.broadcast(on_first(comm, _parse, argv))
    config = BenchConfig.from_dict(options)
    agree_on_blas(comm, config.blas, config.precision)
    figures: list[Mapping[str, Any]] = []
    if config.json:  # now, so that minutes of measuring do not end with a path that will not do
        comm.on_first(lambda: write_measures(str(config.json), {"settings": options}))
    for case in Case.all_of(config.networks):
        figures.append(measure(comm, case, config))
        if comm.is_first:
            print(_line(figures[-1], with_heading=len(figures) == 1), flush=True)
    if config.json:
        report = {
            "settings": options,
            "fingerprint": fingerprint(products.in_use()),
            "figures": figures,
        }
        comm.on_first(lambda: write_measures(str(config.json), report))


def _parse(argv: Sequence[str]) -> dict[str, Any]:
    from distnn.config.command_line import parse_bench  # by rank 0 alone

    return parse_bench(argv).to_dict()


def _line(figures: Mapping[str, Any], with_heading: bool) -> str:
    """One network's figures in microseconds; the parts are means over the ranks."""
    microseconds = {
        "step": figures["seconds"],
        **figures["parts"],
        "limit": figures["limit"],
    }
    name = f"{'-'.join(map(str, figures['layers']))}, {figures['batch']}"
    cells = [f"{value * 1e6:12.1f}" for value in microseconds.values()]
    line = f"{name:<24}{''.join(cells)}{figures['ratio']:7.2f}{figures['samples_per_second']:12.0f}"
    if not with_heading:
        return line
    titles = "".join(f"{title:>12}" for title in microseconds)
    ranks = f"{figures['ranks']} ranks, microseconds"
    return f"{ranks:<24}{titles}{'ratio':>7}{'samples/s':>12}\n{line}"


if __name__ == "__main__":
    run("bench", bench)
