"""What is told of the things that bits depend on."""

import pytest

from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.training import bits

HERE = {"numpy": "2.4.6", "blas_kernel": "Zen", "cpu": "EPYC"}


def meta(reduce: str, ranks: int, **fingerprint: str) -> dict[str, object]:
    return {**bits.facts(reduce, ranks), "fingerprint": HERE | fingerprint}


def test_nothing_is_told_where_bits_are_the_same() -> None:
    assert bits.told_at_start(meta("ordered", 3), None) == []
    assert bits.told_at_start(meta("ordered", 3), meta("ordered", 8)) == []


def test_another_machine_is_told_in_one_line() -> None:
    recorded = meta("ordered", 2, blas_kernel="Haswell", numpy="2.3.0")
    assert bits.told_at_start(meta("ordered", 2), recorded) == [
        "bits may differ from those of a run without a stop: "
        "numpy 2.4.6 here, 2.3.0 recorded; blas_kernel Zen here, Haswell recorded"
    ]


def test_mpis_own_sum_is_told_and_so_is_another_number_of_ranks() -> None:
    (line,) = bits.told_at_start(meta("mpi", 3), meta("mpi", 3))
    assert "--reduce mpi the bits of the result depend on the number of ranks, 3 here" in line
    assert "so far" not in line
    (line,) = bits.told_at_start(meta("mpi", 3), meta("mpi", 8))
    assert line.endswith("3 here; the run was on 8 so far")


def test_facts() -> None:
    assert bits.facts("ordered", 4) == {"reduce": "ordered", "ranks": 4, "depends_on_ranks": False}
    assert bits.facts("mpi", 4)["depends_on_ranks"] is True


@pytest.mark.mpi
def test_ranks_of_one_kind_are_not_told_of() -> None:
    assert bits.told_of_mixed_ranks(Communicator()) == ""


@pytest.mark.mpi
def test_ranks_that_differ_are_told_of_by_rank_0(monkeypatch: pytest.MonkeyPatch) -> None:
    world = MPI.COMM_WORLD
    last = world.rank == world.size - 1
    monkeypatch.setattr(bits, "fingerprint", lambda _blas: HERE | ({"cpu": "Xeon"} if last else {}))
    told = bits.told_of_mixed_ranks(Communicator())
    if world.rank == 0:
        expected = f"{MPI.Get_processor_name()}: cpu Xeon instead of EPYC"
        assert told == f"the ranks differ, bits may depend on which rank does what: {expected}"
    else:
        assert told == ""
