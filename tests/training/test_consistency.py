"""What differs between ranks is an error on all of them, at once; what is said of bits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distnn import SGD, Adam, InputError, Network, Trainer
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.training import consistency
from distnn.training.consistency import check_rows

HERE = {"numpy": "2.4.6", "blas_kernel": "Zen", "cpu": "EPYC"}

RNG = np.random.default_rng(0)
X, T = RNG.standard_normal((24, 5)), RNG.integers(0, 3, 24)


def fit(network: dict[str, Any], trainer: dict[str, Any], given: dict[str, Any]) -> None:
    net = Network(**{"layers": [5, 4, 3], **network})
    arguments = {"optimizer": SGD(0.1), "batch_size": 8, "slices": 4, "stall_timeout": 20}
    fit_arguments = {"X": X, "T": T, "epochs": 1}
    Trainer(net, **{**arguments, **trainer}).fit(**{**fit_arguments, **given})


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("network", "trainer", "given", "name"),
    [
        ({"layers": [5, 6, 3]}, {}, {}, "hidden"),
        ({"activation": "tanh"}, {}, {}, "activation"),
        ({}, {"optimizer": SGD(0.2)}, {}, "optimizer"),
        ({}, {"optimizer": Adam(0.1)}, {}, "optimizer"),
        ({}, {"batch_size": 12}, {}, "batch_size"),
        ({}, {"slices": 6}, {}, "slices"),
        ({}, {"update": "sharded"}, {}, "update"),
        ({}, {"reduce": "mpi"}, {}, "reduce"),
        ({}, {"clip_norm": 1.0}, {}, "clip_norm"),
        ({}, {"seed": 1}, {}, "seed"),
        ({}, {"schedule": "cosine"}, {}, "schedule"),
        ({}, {"warmup": 3}, {}, "warmup"),
        ({}, {"checkpoint_every": "5s"}, {}, "checkpoint_every"),
        ({}, {"on_failure": "abort"}, {}, "on_failure"),
        ({}, {}, {"epochs": 2}, "epochs"),
        ({}, {}, {"test": (X, T)}, "test"),
        ({}, {}, {"partitioned": True}, "partitioned"),
        ({}, {}, {"X": X[:20], "T": T[:20]}, "X"),
    ],
)
def test_one_rank_is_given_something_else(
    network: dict[str, Any], trainer: dict[str, Any], given: dict[str, Any], name: str
) -> None:
    comm = Communicator()
    other = comm.rank == comm.size - 1
    arguments = (network, trainer, given) if other else ({}, {}, {})
    if comm.size == 1:
        fit(*arguments)  # a rank by itself agrees with itself
        return
    with pytest.raises(InputError, match=f"^{name}: "):
        fit(*arguments)


@pytest.mark.mpi
def test_what_only_rank_0_uses_may_differ() -> None:
    other = {"keep": 9, "progress": "auto", "stall_timeout": 30}
    fit({}, {} if Communicator().is_first else other, {})


@pytest.mark.mpi
def test_a_directory_that_only_another_rank_has_is_refused(tmp_path: Path) -> None:
    last = MPI.COMM_WORLD.rank == MPI.COMM_WORLD.size - 1 > 0
    if MPI.COMM_WORLD.size > 1:
        with pytest.raises(InputError, match="run_dir: is given, but not on rank 0"):
            Trainer(Network([2, 2]), run_dir=str(tmp_path) if last else None)
    Trainer(Network([2, 2]), run_dir=str(tmp_path) if MPI.COMM_WORLD.rank == 0 else None)


@pytest.mark.mpi
def test_rows_that_only_rank_0_has_are_no_difference() -> None:
    comm = Communicator()
    check_rows(comm, 7 if comm.is_first else None)
    check_rows(comm, None)
    check_rows(comm, 7)


@pytest.mark.mpi
@pytest.mark.parametrize("first", [0, 3])
def test_other_numbers_of_rows(first: int) -> None:
    comm = Communicator()
    if comm.size == 1:
        check_rows(comm, first)
        return
    with pytest.raises(InputError, match="partitioned=True"):
        check_rows(comm, first if comm.is_first else 5)


def meta(reduce: str, ranks: int, **fingerprint: str) -> dict[str, object]:
    return {**consistency.reduction_facts(reduce, ranks), "fingerprint": HERE | fingerprint}


def test_nothing_is_said_where_bits_are_the_same() -> None:
    assert consistency.start_messages(meta("ordered", 3), None) == []
    assert consistency.start_messages(meta("ordered", 3), meta("ordered", 8)) == []


def test_another_machine_is_named_in_one_line() -> None:
    recorded = meta("ordered", 2, blas_kernel="Haswell", numpy="2.3.0")
    assert consistency.start_messages(meta("ordered", 2), recorded) == [
        "bits may differ from those of a run without a stop: "
        "numpy 2.4.6 here, 2.3.0 recorded; blas_kernel Zen here, Haswell recorded"
    ]


def test_other_instructions_for_products_are_named() -> None:
    here = meta("ordered", 2, product="oneDNN 3.2.0 avx512_core_bf16")
    recorded = meta("ordered", 2, product="oneDNN 3.2.0 avx512_core_amx")
    assert consistency.start_messages(here, recorded) == [
        "bits may differ from those of a run without a stop: "
        "product oneDNN 3.2.0 avx512_core_bf16 here, oneDNN 3.2.0 avx512_core_amx recorded"
    ]


def test_mpis_own_sum_is_named_and_so_is_another_number_of_ranks() -> None:
    (line,) = consistency.start_messages(meta("mpi", 3), meta("mpi", 3))
    assert "--reduce mpi the bits of the result depend on the number of ranks, 3 here" in line
    assert "so far" not in line
    (line,) = consistency.start_messages(meta("mpi", 3), meta("mpi", 8))
    assert line.endswith("3 here; the run was on 8 so far")


def test_reduction_facts() -> None:
    assert consistency.reduction_facts("ordered", 4) == {
        "reduce": "ordered",
        "ranks": 4,
        "depends_on_ranks": False,
    }
    assert consistency.reduction_facts("mpi", 4)["depends_on_ranks"] is True


@pytest.mark.mpi
def test_no_message_for_ranks_of_one_kind() -> None:
    assert consistency.mixed_ranks_message(Communicator()) == ""


@pytest.mark.mpi
def test_ranks_that_differ_are_named_by_rank_0(monkeypatch: pytest.MonkeyPatch) -> None:
    world = MPI.COMM_WORLD
    last = world.rank == world.size - 1
    monkeypatch.setattr(
        consistency, "fingerprint", lambda _blas: HERE | ({"cpu": "Xeon"} if last else {})
    )
    message = consistency.mixed_ranks_message(Communicator())
    if world.rank == 0:
        expected = f"{MPI.Get_processor_name()}: cpu Xeon instead of EPYC"
        assert message == f"the ranks differ, bits may depend on which rank does what: {expected}"
    else:
        assert message == ""
