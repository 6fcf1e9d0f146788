"""Promises 2 and 3 over drawn combinations: one hash on any number of ranks, and after a stop.

All ranks of the test draw the same combinations. Each is trained by teams of 1, 2, ... of them,
with and without shared memory, and once more with a change of ranks and update in the middle.
"""

import functools
import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from drawn import drawn
from hypothesis import strategies as st

from distnn import Network, Trainer
from distnn.errors import InputError
from distnn.nn import products
from distnn.nn.optimizers import OPTIMIZERS
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI

pytestmark = pytest.mark.mpi

RANKS = MPI.COMM_WORLD.size


def is_installed(blas: str) -> bool:
    try:
        products.chosen(blas)
    except InputError:
        return False
    return True


BLAS = [blas for blas in ("numpy", "onednn") if is_installed(blas)]


@dataclass(frozen=True)
class Combination:
    """What the bits may depend on."""

    items: int = 60
    batch: int = 16
    slices: int = 8
    hidden: tuple[int, ...] = (9,)
    activation: str = "tanh"
    optimizer: str = "adam"
    precision: str = "float32"
    dropout: float = 0.0
    clip_norm: float | None = None
    seed: int = 0
    blas: str = "auto"
    wire: str = "float32"
    growing: int = 0  # epochs

    def trainer(self, comm: Communicator, update: str) -> Trainer:
        """A trainer at the beginning."""
        network = Network(
            [7, *self.hidden, 3], self.activation,
            dtype=self.precision, seed=self.seed, dropout=self.dropout,
        )  # fmt: skip
        return Trainer(
            network, OPTIMIZERS[self.optimizer](),
            batch_size=self.batch, slices=self.slices, seed=self.seed, comm=comm,
            update=update, clip_norm=self.clip_norm, blas=self.blas, wire=self.wire,
            base_batch=-(-self.batch // 3), batch_warmup_epochs=self.growing,
        )  # fmt: skip

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and class numbers."""
        draw = np.random.default_rng(self.seed)
        return draw.standard_normal((self.items, 7)), draw.integers(0, 3, self.items)


def with_a_wire(combination: Combination) -> st.SearchStrategy[Combination]:
    """float64 gradients are not rounded. Less that takes long: many steps, and oneDNN's bfloat16,
    which tries each of its small products before it uses them together."""
    combination = replace(combination, items=min(combination.items, 6 * combination.batch))
    if combination.precision == "bfloat16":
        combination = replace(combination, blas="numpy")
    wires = ("float32",) if combination.precision == "float64" else ("float32", "bfloat16")
    return st.sampled_from(wires).map(lambda wire: replace(combination, wire=wire))


combinations = st.builds(
    Combination,
    items=st.integers(1, 90),
    batch=st.integers(1, 50),
    slices=st.integers(RANKS, 13),
    hidden=st.lists(st.integers(1, 40), max_size=3).map(tuple),
    activation=st.sampled_from(("relu", "tanh", "sigmoid", "gelu")),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    precision=st.sampled_from(("float32", "float64", "bfloat16")),
    dropout=st.sampled_from((0.0, 0.4)),
    clip_norm=st.sampled_from((None, 0.05)),
    seed=st.integers(0, 99),
    blas=st.sampled_from(BLAS),
    growing=st.sampled_from((0, 2)),
).flatmap(with_a_wire)


@functools.cache
def communicator_of(ranks: int, shared: bool) -> Communicator | None:
    """A comm of the first ranks; None on the others. Collective."""
    world = MPI.COMM_WORLD
    comm = world.Split(0 if world.rank < ranks else MPI.UNDEFINED, world.rank)
    return None if comm == MPI.COMM_NULL else Communicator(comm, shared=shared)


def result(trainer: Trainer, records: list[dict[str, Any]]) -> str:
    """A hash of weights, optimizer state and losses; complete on rank 0."""
    hasher = hashlib.sha256(repr(records).encode())
    for W in trainer.network.weights:
        hasher.update(W.tobytes())
    for name, vector in sorted(trainer._state.items()):
        hasher.update(name.encode() + vector.tobytes())
    return hasher.hexdigest()


def straight(combination: Combination, comm: Communicator | None, update: str) -> str:
    if comm is None:
        return ""
    trainer = combination.trainer(comm, update)
    return result(trainer, trainer.fit(*combination.data(), epochs=3))


def with_a_change(
    combination: Combination, first: Communicator | None, then: Communicator | None
) -> str:
    """One epoch sharded by one comm, the others by another comm's rank 0."""
    records: list[dict[str, Any]] = []
    position, weights, state = None, None, {}
    if first is not None:
        trainer = combination.trainer(first, "sharded")
        records += trainer.fit(*combination.data(), epochs=1)
        position, weights, state = trainer.position, trainer.network.vector, trainer._state
    position = MPI.COMM_WORLD.bcast(position)
    if then is None:
        return ""
    other = combination.trainer(then, "rank0")
    other.load_state(position, weights if then.is_first else None, state)
    records += other.fit(*combination.data(), epochs=2)
    return result(other, records)


def same_on_all(results: dict[str, str]) -> None:
    """Fails on every rank alike, so that all of them draw on in step."""
    results = MPI.COMM_WORLD.bcast(results)
    first = next(iter(results.values()))
    assert {name: hashed for name, hashed in results.items() if hashed != first} == {}


# The last example has layers and slices that are large enough to be worth cutting: products that
# are cut have other bits than whole ones, with some BLAS kernels, so that a cut must not depend on
# ranks or nodes.
@drawn(
    combinations,
    Combination(optimizer="sgd", items=3, batch=5, slices=13),  # most slices are empty
    Combination(optimizer="adamw", batch=50, clip_norm=0.05, dropout=0.4),
    Combination(precision="float64", hidden=(300, 200), slices=5),  # some granules
    Combination(optimizer="sgd", hidden=(600, 500), items=132, batch=132, slices=4),
    Combination(precision="bfloat16", blas=BLAS[-1], hidden=(600, 500), items=90, batch=80),
    Combination(wire="bfloat16", optimizer="sgd", items=40, batch=30, dropout=0.3),
    Combination(wire="bfloat16", hidden=(600, 500), items=70, batch=64, clip_norm=0.05),
    max_examples=16 // RANKS**2 + 2,  # as many as a few seconds allow
)
def test_one_hash_whatever_the_ranks(combination: Combination) -> None:
    results = {}
    for ranks in range(1, RANKS + 1):
        for shared, update in ((True, "rank0"), (True, "sharded"), (False, "sharded")):
            name = f"{ranks} ranks, {update}" + ("" if shared else ", a node each")
            results[name] = straight(combination, communicator_of(ranks, shared), update)
    results["a node each, rank0"] = straight(combination, communicator_of(RANKS, False), "rank0")
    for first, then in ((RANKS, 1), (1, RANKS), (RANKS, RANKS - 1)):
        name = f"{first} ranks sharded, then {then}"
        teams = communicator_of(first, True), communicator_of(then, False)
        results[name] = with_a_change(combination, *teams)
    same_on_all(results)


@pytest.mark.parametrize(
    ("optimizer", "wire"),
    [
        *((name, "float32") for name in sorted(OPTIMIZERS)),
        ("sgd", "bfloat16"),
        ("muon", "bfloat16"),
        ("lamb", "bfloat16"),
        ("adam", "bfloat16"),
    ],
)
def test_every_optimizer_has_one_hash_with_everything_switched_on(
    optimizer: str, wire: str
) -> None:
    combination = Combination(
        optimizer=optimizer, hidden=(70, 60), clip_norm=0.05, dropout=0.2, slices=11, wire=wire
    )
    results = {}
    for shared, update in (
        (True, "rank0"),
        (True, "sharded"),
        (False, "rank0"),
        (False, "sharded"),
    ):
        for ranks in {1, 2, RANKS}:
            results[f"{ranks} {shared} {update}"] = straight(
                combination, communicator_of(ranks, shared), update
            )
    same_on_all(results)
