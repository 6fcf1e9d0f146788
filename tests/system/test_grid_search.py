"""The grid search that mpi4py.futures spreads over groups of ranks."""

import pytest

from launch import ROOT, mpirun

pytest.importorskip(
    "sklearn", reason="scikit-learn is not installed: pip install 'distnn[sklearn]'"
)


def test_groups_of_ranks_find_the_scores_of_one_process() -> None:
    runs = [mpirun(n, ROOT / "examples/grid_search.py", module="mpi4py") for n in (1, 3)]
    assert [run.code for run in runs] == [0, 0], runs[1].stderr
    assert len(runs[0].stdout.splitlines()) == 8
    assert runs[0].stdout == runs[1].stdout
