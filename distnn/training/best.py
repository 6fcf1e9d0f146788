"""The best weights of a training so far, and what validation and test set say of them."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distnn.config.options import TrainConfig
from distnn.nn.network import Network
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.shared_memory import ArraySpec, SharedMemory, closing, needed_bytes
from distnn.run.checkpoint import CheckpointError, weights_sha256
from distnn.training.early_stopping import EarlyStopping
from distnn.training.training_data import TrainingData
from distnn.training.vectors import share_weights, weights_spec

if TYPE_CHECKING:  # only rank 0 reads files
    from distnn.training.run_files import RunFiles

Array = NDArray[Any]


class BestWeights:
    """What is watched on the validation set, and on rank 0 a copy of the weights it is best with.

    Attributes:
        stopping: the same on every rank.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.stopping = EarlyStopping(config.metric, config.patience)
        self._vector: Array | None = None  # (size,) on rank 0

    def keep(self, weights: Array) -> None:
        """Rank 0: these weights (size,) are the best so far."""
        if self._vector is None:
            self._vector = weights.copy()
        else:
            self._vector[:] = weights

    def read(self, files: "RunFiles") -> None:
        """Rank 0: go on from the files' checkpoint; raises CheckpointError."""
        if files.checkpoint is not None and (state := files.checkpoint.meta.get("watch")):
            self.stopping.restore(state)
            self._vector = files.best_weights(self.stopping)

    def load(self, comm: Communicator, network: Network) -> None:
        """Give a network the best weights, if there are some. Collective."""
        if self.stopping.value is not None:
            vector = np.empty(network.size, network.dtype)
            comm.on_first(lambda: self._copy(vector))
            comm.mpi.Bcast(vector)
            network.load(vector)

    def report(
        self, comm: Communicator, network: Network, data: TrainingData, epoch: int
    ) -> dict[str, Any]:
        """All measures of the validation and the test set, in the end. Collective.

        They are those of the best weights on the validation set, where there is one and some epoch
        had a finite metric, else of the network's own.

        Args:
            epoch: the one that training has come to.
        """
        report: dict[str, Any] = {}
        memory = SharedMemory(comm)
        with closing(memory), np.errstate(all="ignore"):
            if data.validation is not None:
                report["stopped_early"] = self.stopping.is_over(epoch)
                if self.stopping.value is not None:
                    network = self._network(memory, network)
                    report["best_epoch"] = self.stopping.epoch
                    report["best_weights_sha256"] = weights_sha256(network.weights)
            for evaluation in data.evaluations(comm, network, self.stopping.metric):
                report |= evaluation.report()
        return report

    def _network(self, memory: SharedMemory, network: Network) -> Network:
        """A network with the best weights, held once per node. Collective."""
        best = Network(**network.config())
        share_weights(memory, best, self._copy)
        return best

    def _copy(self, vector: Array) -> None:
        """Rank 0: the best weights into a vector (size,).

        Raises:
            CheckpointError: they are lost: newer checkpoints had better ones, and are lost, too.
        """
        if self._vector is None:
            what = f"the weights of the best epoch so far, {self.stopping.epoch}, are lost"
            raise CheckpointError(what, "checkpoints", "train on: a later epoch was better")
        vector[:] = self._vector


def shared_at_end(network: Network, items: int) -> int:
    """Bytes that a node shares for the best weights, and for weights of classes on each row."""
    return needed_bytes([weights_spec(network), ArraySpec(1, (items,), np.float64)])
