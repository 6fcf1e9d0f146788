"""What ranks were told differently is an error on all of them, at once."""

from typing import Any

import numpy as np
import pytest

from distnn import SGD, Adam, InputError, Network, Trainer
from distnn.parallel.comm.communicator import Communicator
from distnn.training.agreement import check_rows

pytestmark = pytest.mark.mpi

RNG = np.random.default_rng(0)
X, T = RNG.standard_normal((24, 5)), RNG.integers(0, 3, 24)


def fit(network: dict[str, Any], trainer: dict[str, Any], given: dict[str, Any]) -> None:
    net = Network(**{"layers": [5, 4, 3], **network})
    arguments = {"optimizer": SGD(0.1), "batch_size": 8, "slices": 4, "stall_timeout": 20}
    fit_arguments = {"X": X, "T": T, "epochs": 1}
    Trainer(net, **{**arguments, **trainer}).fit(**{**fit_arguments, **given})


@pytest.mark.parametrize(
    ("network", "trainer", "given", "name"),
    [
        ({"layers": [5, 6, 3]}, {}, {}, "network"),
        ({"activation": "tanh"}, {}, {}, "network"),
        ({}, {"optimizer": SGD(0.2)}, {}, "optimizer"),
        ({}, {"optimizer": Adam(0.1)}, {}, "optimizer"),
        ({}, {"batch_size": 12}, {}, "batch_size"),
        ({}, {"slices": 6}, {}, "slices"),
        ({}, {"update": "sharded"}, {}, "update"),
        ({}, {"reduce": "mpi"}, {}, "reduce"),
        ({}, {"clip_norm": 1.0}, {}, "clip_norm"),
        ({}, {}, {"epochs": 2}, "epochs"),
        ({}, {}, {"test": (X, T)}, "test"),
        ({}, {}, {"partitioned": True}, "partitioned"),
        ({}, {}, {"X": X[:20], "T": T[:20]}, "X"),
    ],
)
def test_one_rank_is_told_something_else(
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


def test_rows_that_only_rank_0_has_are_no_difference() -> None:
    comm = Communicator()
    check_rows(comm, 7 if comm.is_first else None)
    check_rows(comm, None)
    check_rows(comm, 7)


@pytest.mark.parametrize("first", [0, 3])
def test_other_numbers_of_rows(first: int) -> None:
    comm = Communicator()
    if comm.size == 1:
        check_rows(comm, first)
        return
    with pytest.raises(InputError, match="partitioned=True"):
        check_rows(comm, first if comm.is_first else 5)
