"""What the bench finds of a network."""

import numpy as np
import pytest

from distnn.config.commands import BenchConfig
from distnn.diagnostics.step_profile import PHASES
from distnn.diagnostics.steps import Case, measure
from distnn.parallel.comm.communicator import Communicator


def test_cases_of_the_flag() -> None:
    assert Case.all_of("784-30-10:16:sigmoid,8-3:4") == [
        Case((784, 30, 10), 16, "sigmoid"),
        Case((8, 3), 4, "relu"),
    ]


@pytest.mark.mpi
def test_figures_belong_together() -> None:
    comm, case = Communicator(), Case((12, 7, 5), 16, "tanh")
    figures = measure(comm, case, BenchConfig(optimizer="adam", slices=8, seconds=0.05))
    assert (figures["layers"], figures["batch"]) == (case.layers, 16)
    assert (figures["ranks"], figures["nodes"], figures["slices"]) == (comm.size, 1, 8)
    assert figures["samples_per_second"] == pytest.approx(16 / figures["seconds"])
    assert figures["ratio"] == pytest.approx(figures["seconds"] / figures["limit"])
    # a stopwatch around every part, and the rest: together they are the step
    assert set(figures["parts"]) == set(PHASES)
    assert sum(figures["parts"].values()) == pytest.approx(figures["seconds"], rel=0.5)
    of_rank = np.array([[row[part] for part in PHASES] for row in figures["parts_of_rank"]])
    assert of_rank.shape == (comm.size, len(PHASES))
    assert (of_rank >= 0).all()
    assert of_rank.mean(axis=0) == pytest.approx(list(figures["parts"].values()))
