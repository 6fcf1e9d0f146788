"""The best weights: those that were kept, and an error where they are lost."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import small

from distnn.config.options import TrainConfig
from distnn.parallel.comm.communicator import Communicator, communicator_of
from distnn.run.checkpoint import CheckpointError
from distnn.training.best import BestWeights
from distnn.training.early_stopping import EarlyStopping
from distnn.training.training_data import TrainingData


@pytest.fixture
def comm() -> Communicator:
    return communicator_of(None)


def test_what_was_kept_is_loaded(comm: Communicator) -> None:
    best, network = BestWeights(TrainConfig()), small.network()
    kept = network.vector.copy()
    best.load(comm, network)  # nothing yet: nothing changes
    assert network.vector.tobytes() == kept.tobytes()
    best.stopping.see(1, {"validation_loss": 0.5})
    best.keep(network.vector)
    network.vector[:] = 0
    best.load(comm, network)
    assert network.vector.tobytes() == kept.tobytes()


def test_what_is_lost_is_no_network_of_zeros(comm: Communicator) -> None:
    """The best file is of an epoch whose checkpoint is lost, as are the best weights before it."""
    before = EarlyStopping("loss", None)
    before.see(3, {"validation_loss": 0.5})
    checkpoint = SimpleNamespace(meta={"watch": before.state()})
    files: Any = SimpleNamespace(checkpoint=checkpoint, best_weights=lambda stopping: None)
    best, network = BestWeights(TrainConfig()), small.network()
    best.read(files)
    kept = network.vector.copy()
    with pytest.raises(CheckpointError, match="the weights of the best epoch so far, 3, are lost"):
        best.load(comm, network)
    assert network.vector.tobytes() == kept.tobytes()
    data = cast(TrainingData, SimpleNamespace(validation="some", evaluations=None))
    with pytest.raises(CheckpointError, match="train on: a later epoch was better"):
        best.report(comm, network, data, 4)
