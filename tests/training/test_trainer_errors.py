"""How a fit ends that is stopped, diverges, fails, or was asked for what cannot be done."""

import threading
from typing import Any

import numpy as np
import pytest
from small import CLASSES, bits, classes, network, rows

from distnn import SGD, Adam, DivergenceError, InputError, Trainer
from distnn.errors import RankFailed, StopRequested
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.training.session import Session

WORLD = MPI.COMM_WORLD


@pytest.mark.mpi
@pytest.mark.parametrize("update", ["rank0", "sharded"])
def test_a_stop_keeps_what_is_done(update: str) -> None:
    X, T, once, stopped = rows(40), classes(40), network(), network()
    options = {"batch_size": 8, "slices": 5, "update": update, "optimizer": Adam(0.02)}
    Trainer(once, **options).fit(X, T, epochs=2)
    trainer = Trainer(stopped, **options)
    if WORLD.rank == WORLD.size - 1:  # any rank may ask
        trainer.request_stop()
    with pytest.raises(StopRequested, match="epoch 0, step 1"):
        trainer.fit(X, T, epochs=2)
    trainer.fit(X, T, epochs=2)
    assert bits(stopped) == bits(once)


@pytest.mark.mpi
def test_divergence_rises_on_all_ranks_and_the_trainer_can_be_used_again() -> None:
    X, T = rows(40), rows(40)[:, :1]
    net = network(layers=[4, 1], output="identity", loss="squared-error")
    start = [W.copy() for W in net.weights]
    trainer = Trainer(net, SGD(1e200), batch_size=8, slices=5)
    with pytest.raises(DivergenceError, match="learning rate 1e"):
        trainer.fit(X, T, epochs=3)
    for W, before in zip(net.weights, start, strict=True):
        W[...] = before
    trainer.optimizer = SGD(0.01)
    assert np.isfinite(trainer.fit(X, T, epochs=1)[0]["train_loss"])


# --- what a caller gets wrong ------------------------------------------------------------------

GOOD = (rows(20), classes(20))
WRONG_ARRAYS: dict[str, tuple[Any, Any, str]] = {
    "X of one axis": (rows(20)[:, 0], classes(20), "X"),
    "X a number": (3.0, classes(20), "X"),
    "no X": (None, classes(20), "X"),
    "X of words": (np.full((20, 4), "a"), classes(20), "X"),
    "X complex": (rows(20) * 1j, classes(20), "X"),
    "X ragged": ([[1, 2, 3, 4], [1, 2]], [0, 1], "X"),
    "other features": (rows(20, 5), classes(20), "4 features"),
    "no rows": (rows(20)[:0], classes(20)[:0], "X"),
    "NaN": (np.full((20, 4), np.nan), classes(20), "NaN"),
    "fewer targets": (rows(20), classes(19), "20 rows and 19 targets"),
    "class beyond": (rows(20), np.full(20, CLASSES), "targets"),
    "class below": (rows(20), np.full(20, -1), "targets"),
    "class and a half": (rows(20), np.full(20, 1.5), "targets"),
    "other outputs": (rows(20), np.eye(CLASSES + 1)[classes(20)], "targets"),
    "no targets": (rows(20), None, "targets"),
    "words": (rows(20), ["a"] * 20, "targets"),
    "negative soft labels": (rows(20), -np.eye(CLASSES)[classes(20)], "targets"),
}


@pytest.mark.mpi
@pytest.mark.parametrize("partitioned", [False, True])
@pytest.mark.parametrize("case", WRONG_ARRAYS)
def test_arrays_that_do_not_fit_are_an_error_on_every_rank(case: str, partitioned: bool) -> None:
    X, T, words = WRONG_ARRAYS[case]
    trainer = Trainer(network(), batch_size=8, slices=5)
    with pytest.raises(InputError, match=words):
        trainer.fit(X, T, 1, partitioned=partitioned)
    if not partitioned:
        with pytest.raises(InputError, match=words):
            trainer.fit(*GOOD, 1, test=(X, T))


@pytest.mark.mpi
def test_after_an_error_nothing_is_broken() -> None:
    net, fresh = network(), network()
    trainer = Trainer(net, batch_size=8, slices=5)
    for X, T, _ in WRONG_ARRAYS.values():
        with pytest.raises(InputError):
            trainer.fit(X, T, 1)
    trainer.fit(*GOOD, 1)
    Trainer(fresh, batch_size=8, slices=5).fit(*GOOD, 1)
    assert bits(net) == bits(fresh)


@pytest.mark.mpi
@pytest.mark.parametrize("case", sorted(set(WRONG_ARRAYS) - {"no rows"}))
def test_one_ranks_bad_part_is_an_error_on_every_rank(case: str) -> None:
    X, T, words = WRONG_ARRAYS[case] if WORLD.rank == WORLD.size - 1 else (*GOOD, "")
    with pytest.raises(InputError, match=WRONG_ARRAYS[case][2]):
        Trainer(network(), batch_size=8, slices=5).fit(X, T, 1, partitioned=True)
    with pytest.raises(InputError, match=f"^[a-zA-Z]* of rank {WORLD.size - 1}: "):
        Trainer(network(), slices=5).fit(X, T, 1, partitioned=True)
    assert words or WORLD.rank < WORLD.size - 1


@pytest.mark.mpi
def test_parts_of_different_kinds() -> None:
    T = classes(20)
    mixed = T if WORLD.rank == 0 else np.eye(CLASSES)[T]
    one = "targets of rank 0: are class numbers, and on another rank a matrix"
    with pytest.raises(InputError, match=one):
        Trainer(network(), slices=5).fit(rows(20), mixed, 1, partitioned=True)


@pytest.mark.mpi
def test_a_bad_part_is_that_of_the_callers_rank() -> None:
    backwards = WORLD.Split(0, -WORLD.rank)  # the world's last rank is the caller's rank 0
    X = rows(20) if WORLD.rank < WORLD.size - 1 else rows(20) * np.nan
    trainer = Trainer(network(), slices=5, comm=backwards)
    with pytest.raises(InputError, match=r"^X of rank 0: NaN"):
        trainer.fit(X, classes(20), 1, partitioned=True)


@pytest.mark.parametrize(
    "test", [rows(5), (rows(5),), (rows(5), classes(5), 1), 3], ids=["X", "one", "three", "number"]
)
def test_a_test_set_that_is_no_pair(test: Any) -> None:
    with pytest.raises(InputError, match=r"test|sample_weight"):
        Trainer(network()).fit(*GOOD, 1, test=test)


@pytest.mark.parametrize("epochs", [0, -1, 1.5, True, "3", None])
def test_epochs(epochs: Any) -> None:
    with pytest.raises(InputError, match="epochs"):
        Trainer(network()).fit(*GOOD, epochs)


WRONG_OPTIONS: list[tuple[str, Any]] = [
    ("batch_size", 0), ("batch_size", 2.0), ("batch_size", "64"), ("batch_size", True),
    ("slices", 0), ("slices", -1), ("slices", 1.0),
    ("seed", -1), ("seed", 2**63), ("seed", None), ("seed", 0.5),
    ("update", "rank1"), ("update", None), ("reduce", "sum"),
    ("schedule", "cosin"), ("schedule", None),
    ("warmup", -1), ("warmup", 0.5),
    ("clip_norm", 0), ("clip_norm", -1), ("clip_norm", float("nan")), ("clip_norm", "1"),
    ("optimizer", "adam"), ("optimizer", Adam), ("optimizer", 0.1),
    ("network", [4, 3]), ("network", None),
    ("comm", 3), ("comm", MPI.COMM_NULL), ("batchsize", 8), ("epochs", 3),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG_OPTIONS)
def test_options(name: str, value: Any) -> None:
    arguments = {"network": network(), name: value}
    with pytest.raises(InputError, match=name):
        Trainer(**arguments)


@pytest.mark.mpi
def test_a_failure_leaves_no_thread_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(session: Session, *arguments: Any) -> int:
        if session.position.steps == 2 and WORLD.rank == WORLD.size - 1:
            raise ZeroDivisionError("injected")
        return right_step(session, *arguments)

    right_step, threads = Session.step, set(threading.enumerate())
    monkeypatch.setattr(Session, "step", step)
    trainer = Trainer(network(), batch_size=8, slices=5, comm=Communicator(shared=False))
    with pytest.raises(ZeroDivisionError if WORLD.rank == WORLD.size - 1 else RankFailed):
        trainer.fit(rows(20), classes(20), 2)
    assert set(threading.enumerate()) <= threads
    WORLD.Barrier()


@pytest.mark.mpi
@pytest.mark.parametrize(("batch_size", "empty"), [(8, 0), (7, 0), (3, 4)])
def test_more_slices_than_items_in_a_batch_are_reported_once_and_change_nothing(
    batch_size: int, empty: int, caplog: pytest.LogCaptureFixture
) -> None:
    X, T = rows(20), classes(20)
    many, few = network(), network()
    Trainer(many, SGD(0.1), batch_size=batch_size, slices=7).fit(X, T, 2)
    said = caplog.messages
    if empty and WORLD.rank == 0:
        assert len(said) == 1
        assert f"7 slices for batches of {batch_size}: {empty} of each step are empty" in said[0]
    else:
        assert said == []
    Trainer(few, SGD(0.1), batch_size=batch_size, slices=WORLD.size).fit(X, T, 2)
    np.testing.assert_allclose(many.vector, few.vector, rtol=1e-5, atol=1e-6)


@pytest.mark.mpi
def test_more_ranks_than_slices() -> None:
    with pytest.raises(InputError, match="slices"):
        Trainer(network(), slices=WORLD.size - 1)


def test_whole_numbers_of_numpy() -> None:
    trainer = Trainer(network(), batch_size=np.int64(8), slices=np.int32(2), seed=np.uint8(3))
    assert trainer.fit(*GOOD, epochs=np.int64(1))[0]["epoch"] == 1
