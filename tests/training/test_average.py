"""Averaged weights: the mean by its definition, used wherever a network is measured or applied."""

from pathlib import Path

import numpy as np
import pytest

from distnn import Adam, Network, Trainer
from distnn.nn.optimizers.average import NAME, averaged
from distnn.parallel.comm.communicator import Communicator
from distnn.run import checkpoint
from distnn.training.prediction import Trained
from distnn.training.saved import evaluated_weights
from tests.small import classes, rows

BETA, EPOCHS = 0.9, 4


def trainer(
    optimizer: object = None, comm: Communicator | None = None, **options: object
) -> Trainer:
    network = Network([4, 6, 3], activation="tanh", dtype="float64", seed=1)
    optimizer = Adam(0.05) if optimizer is None else optimizer
    return Trainer(network, optimizer, comm=comm, batch_size=30, **options)  # type: ignore[arg-type]


@pytest.mark.mpi
@pytest.mark.parametrize("update", ["rank0", "sharded"])
@pytest.mark.parametrize("shared", [True, False])
def test_the_average_is_its_definition_and_is_what_is_measured(update: str, shared: bool) -> None:
    """One step per epoch, so that each epoch's weights are known."""
    X, T = rows(30), classes(30)
    comm = Communicator(shared=shared)
    plain, other = (
        trainer(comm=comm, update=update),
        trainer(comm=comm, update=update, average=BETA),
    )
    weights, sums, total = [], np.zeros(plain.network.size), 0.0
    for _ in range(EPOCHS):
        plain.fit(X, T, epochs=1)
        weights.append(plain.network.vector.copy())
    records = other.fit(X, T, epochs=EPOCHS, test=(X, T))
    assert other.network.vector.tobytes() == weights[-1].tobytes()  # the training is the same
    network = Network([4, 6, 3], activation="tanh", dtype="float64")
    for step, w in enumerate(weights):
        sums, total = BETA * sums + w, BETA * total + 1
        network.bind(sums / total)
        loss, _ = network.loss_and_gradients(X, T)
        assert records[step]["test_loss"] == pytest.approx(loss, rel=1e-11)
    if comm.is_first:
        found = averaged(other._state[NAME], BETA, EPOCHS)
        np.testing.assert_allclose(found, sums / total, rtol=1e-12, atol=1e-14)


def test_predictions_and_resumed_runs_use_it(tmp_path: Path) -> None:
    X, T = rows(60), classes(60)
    options = {"average": BETA, "slices": 2, "checkpoint_every": 1, "keep": 9}
    whole = trainer(run_dir=str(tmp_path / "a"), **options)
    records = whole.fit(X, T, epochs=3, test=(X, T))
    trainer(run_dir=str(tmp_path / "b"), **options).fit(X, T, epochs=2, test=(X, T))
    resumed = trainer(run_dir=str(tmp_path / "b"), resume=True, **options)
    assert resumed.fit(X, T, epochs=3, test=(X, T))[-1] == records[-1]
    assert resumed._state[NAME].tobytes() == whole._state[NAME].tobytes()
    trained = Trained.open(str(tmp_path / "a"), "latest")
    found = checkpoint.read(checkpoint.find(tmp_path / "a" / "checkpoints", "latest"))
    assert np.array_equal(trained.network.vector, evaluated_weights(found))
    assert not np.array_equal(trained.network.vector, found.weights())
    loss, _ = trained.network.loss_and_gradients(X, T)
    assert records[-1]["test_loss"] == pytest.approx(loss, rel=1e-11)
