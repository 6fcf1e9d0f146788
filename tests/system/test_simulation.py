"""The simulation that trains a surrogate: one result on any ranks; ranks that only train."""

import re

from launch import ROOT, mpirun

EXAMPLE = ROOT / "examples" / "simulation.py"


def test_in_turn_the_result_depends_on_no_rank() -> None:
    results = [mpirun(ranks, EXAMPLE, module="mpi4py") for ranks in (1, 3)]
    assert [result.code for result in results] == [0, 0], results
    assert "sha256" in results[0].stdout
    assert results[0].stdout == results[1].stdout


def test_apart_the_surrogate_is_as_good() -> None:
    result = mpirun(3, EXAMPLE, "--apart", module="mpi4py")
    assert result.code == 0, result.stderr
    found = re.search(r"largest error ([\d.]+), range ([\d.]+)", result.stdout)
    assert found is not None
    assert float(found[1]) < 0.05 * float(found[2])
