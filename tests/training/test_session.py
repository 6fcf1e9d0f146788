"""One training's state: position, losses, order, and what a stop and a divergence leave."""

import numpy as np
import pytest

from distnn import SGD, Adam, DivergenceError, Network
from distnn.config.options import TrainConfig
from distnn.data.order import epoch_order
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.parallel.comm.shared_memory import SharedMemory
from distnn.parallel.reduction import loss_sums
from distnn.run.position import Position
from distnn.training.arrays import from_arrays
from distnn.training.dataset import Dataset
from distnn.training.session import Session
from distnn.training.vectors import MARGIN, vector_bytes

WORLD = MPI.COMM_WORLD


def data(comm: Communicator, n: int, network: Network) -> Dataset:
    X = np.random.default_rng(n).normal(size=(n, 3))
    return from_arrays(comm, SharedMemory(comm), network, X, np.arange(n) % 2)


def session(
    comm: Communicator, batch: int = 8, slices: int = 5, rate: float = 0.1, n: int = 20
) -> Session:
    network = Network([3, 4, 2], dtype="float64")
    made = Session(comm, network, SGD(rate), TrainConfig(batch_size=batch, slices=slices, seed=3))
    made.start(None, data(comm, n, network))
    return made


@pytest.mark.mpi
@pytest.mark.parametrize(("n", "batch", "steps"), [(20, 8, 3), (16, 8, 2), (5, 8, 1), (1, 1, 1)])
def test_an_epoch_goes_through_every_item_once(n: int, batch: int, steps: int) -> None:
    one = session(Communicator(), batch, n=n)
    for epoch in range(2):
        assert one.begin_epoch(epochs=2) == steps
        assert np.array_equal(one._order.batch(0, n), epoch_order(n, 3, epoch))
        for step in range(steps):
            assert (one.position.epoch, one.position.step) == (epoch, step)
            one.step()
        assert one.position.steps == (epoch + 1) * steps
        assert one.end_epoch()["train_loss"] > 0
    assert one.position == Position(epoch=2, step=0, steps=2 * steps, loss=0.0)
    one.close()


@pytest.mark.mpi
def test_the_loss_of_an_epoch_is_the_mean_over_items_as_they_were_trained_on() -> None:
    one = session(Communicator(), batch=8)
    samples, steps, expected = one.dataset, one.begin_epoch(epochs=1), 0.0
    for step in range(steps):
        batch = one._order.batch(8 * step, 8 * step + 8)
        X, T = samples.X[batch, 1:], samples.T[batch, 0]
        expected += one.network.loss_and_gradients(X, T)[0] * len(batch)
        one.comm.mpi.Barrier()  # nobody changes the weights before
        one.step()
    assert one.end_epoch()["train_loss"] == pytest.approx(expected / 20, rel=1e-12)
    one.close()


@pytest.mark.mpi
@pytest.mark.parametrize("clip", [None, 1e9, 0.01])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_step_of_sgd_is_its_formula(clip: float | None, decay: float) -> None:
    """w - lr (g + decay w), g shortened to `clip`: also where lr is in the gradients already."""
    comm, network = Communicator(), Network([3, 4, 2], dtype="float64", seed=1)
    plan = TrainConfig(batch_size=8, slices=5, seed=3, schedule="linear", warmup=2, clip_norm=clip)
    one = Session(comm, network, SGD(0.5, weight_decay=decay), plan)
    samples = data(comm, 20, network)
    one.start(None, samples)
    for t in range(1, one.begin_epoch(epochs=2) + 1):
        batch = one._order.batch(8 * (t - 1), 8 * t)
        X, T = samples.X[batch, 1:], samples.T[batch, 0]
        g = np.concatenate([dW.ravel() for dW in network.loss_and_gradients(X, T)[1]])
        norm = np.linalg.norm(g)
        g *= 1 if clip is None else min(1, clip / norm)
        rate = 0.5 * {1: 1 / 2, 2: 1, 3: 1}[t]
        expected = network.vector - rate * (g + decay * network.vector)
        comm.mpi.Barrier()  # nobody changes the weights before
        one.step()
        np.testing.assert_allclose(network.vector, expected, rtol=1e-12, atol=1e-15)
        comm.mpi.Barrier()
    one.close()


@pytest.mark.mpi
def test_losses_may_be_collected_at_any_step() -> None:
    results = []
    for often in (False, True):
        one = session(Communicator(), batch=2)
        for _ in range(one.begin_epoch(epochs=1)):
            one.step()
            if often:
                one.collect_losses()
        results.append(one.end_epoch())
        one.close()
    assert results[0] == results[1]


@pytest.mark.mpi
@pytest.mark.parametrize("apart", [False, True])
def test_a_stop_request_reaches_every_rank(apart: bool) -> None:
    comm = Communicator(shared=not apart)
    one = session(comm)
    one.begin_epoch(epochs=1)
    found = [one.step(stop=int(comm.rank == comm.size - 1) * step) for step in (0, 1)]
    found.append(one.step())
    assert found == ([0, 0, 1] if comm.nodes > 1 else [0, 1, 0])
    one.close()


@pytest.mark.mpi
@pytest.mark.parametrize("update", ["rank0", "sharded"])
def test_restored_it_goes_on_with_the_same_bits(update: str) -> None:
    def train(until: int, start: tuple | None) -> tuple:
        comm, network = Communicator(), Network([3, 4, 2])
        one = Session(
            comm, network, Adam(0.01), TrainConfig(batch_size=8, slices=5, seed=3, update=update)
        )
        one.start(None if start is None else start[0], data(comm, 20, network))
        if start is not None:
            one.restore(start[1], start[2])
        one.begin_epoch(epochs=1)
        while one.position.step < until:
            one.step()
        one.collect_losses()
        one.collect_state()
        state = {name: vector.copy() for name, vector in one.exchange.state.items()}
        weights = one.exchange.weights.copy()
        one.close()
        return weights, state, one.position

    straight, resumed = train(3, None), train(3, train(1, None))
    assert straight[0].tobytes() == resumed[0].tobytes()
    if WORLD.rank == 0:
        assert {k: v.tobytes() for k, v in straight[1].items()} == {
            k: v.tobytes() for k, v in resumed[1].items()
        }
    assert straight[2] == resumed[2]


@pytest.mark.mpi
def test_divergence_names_step_rate_and_layers() -> None:
    one = session(Communicator(), rate=1e300)
    steps = one.begin_epoch(epochs=1)
    with np.errstate(all="ignore"):
        for _ in range(steps):
            one.step()
        with pytest.raises(DivergenceError, match=r"step \d .* learning rate 1e\+300; .*W2"):
            one.end_epoch()
    one.close()


@pytest.mark.mpi
def test_a_closed_session_leaves_the_weights_to_the_network() -> None:
    one = session(Communicator())
    before = one.exchange.weights.copy()
    one.close()
    assert np.array_equal(one.network.vector, before)


@pytest.mark.mpi
@pytest.mark.parametrize("update", ["rank0", "sharded"])
@pytest.mark.parametrize("slices", [WORLD.size, 7 * WORLD.size + 5])
def test_a_node_needs_what_a_session_takes(
    update: str, slices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    allocate = SharedMemory._allocate

    def count(memory: SharedMemory, size: int) -> np.ndarray:
        taken.append(size)
        return allocate(memory, size)

    monkeypatch.setattr(SharedMemory, "_allocate", count)
    comm, network = Communicator(), Network([30, 200, 10])
    one = Session(comm, network, Adam(), TrainConfig(batch_size=64, slices=slices, update=update))
    needed = vector_bytes(network, Adam(), comm, one.config)
    assert sum(taken) <= needed <= sum(taken) + MARGIN + (1 << 16)
    one.close()


def alone() -> Communicator:
    return Communicator(MPI.COMM_SELF)


def test_losses_of_a_long_epoch_are_all_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are summed whenever so many steps are kept."""
    means = []
    for kept in (256, 4):
        monkeypatch.setattr(loss_sums, "STEPS", kept)
        one = session(alone(), batch=2, n=21)
        for _ in range(one.begin_epoch(epochs=1)):
            one.step()
        means.append(one.end_epoch())
        one.close()
    assert means[0] == means[1]


def test_dropout_draws_another_mask_in_each_step() -> None:
    network = Network([3, 40, 2], dtype="float64", dropout=0.5)
    one = Session(alone(), network, SGD(1e-300), TrainConfig(batch_size=8, slices=2))
    rows = np.tile([0.3, -1.0, 2.0], (8, 1))  # equal rows: only masks tell steps apart
    labels = np.zeros(8, int)
    one.start(None, from_arrays(one.comm, SharedMemory(one.comm), network, rows, labels))
    losses = set()
    for _ in range(4):
        one.begin_epoch(epochs=4)
        one.step()
        losses.add(one.end_epoch()["train_loss"])
    one.close()
    assert len(losses) == 4


def test_what_is_not_finite_is_seen_in_weights_and_state_and_what_is_large_is_kept() -> None:
    network = Network([3, 4, 2], dtype="float32")
    one = Session(alone(), network, Adam(0.1), TrainConfig(batch_size=8, slices=2))
    one.start(None, data(one.comm, 20, network))
    one.exchange.weights[:] = 3e38  # whose sum overflows
    with np.errstate(over="ignore"):
        one.check_finite()
    for vector in (one.exchange.weights, *one.exchange.state.values()):
        kept, vector[5] = vector[5], np.nan
        with pytest.raises(DivergenceError, match="no longer finite"), np.errstate(all="ignore"):
            one.check_finite()
        vector[5] = kept
    one.close()
