"""What stands between an estimator and a training: rows, the L2 term, and the epochs of one fit."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distnn.blas_threads import one_thread_per_rank
from distnn.config.options import TrainConfig
from distnn.data.order import epoch_order
from distnn.errors import DistnnError
from distnn.nn.network import Network
from distnn.nn.optimizers import Optimizer, Rule
from distnn.nn.products import in_use
from distnn.parallel.comm.communicator import Communicator, mpi_of
from distnn.parallel.comm.shared_memory import SharedMemory, closing
from distnn.parallel.watchdog.watchdog import watched
from distnn.run.position import Position
from distnn.training.consistency import agree_on_blas, agreed
from distnn.training.dataset import Dataset, RowLayout, allocate, share, shared_bytes
from distnn.training.session import Session
from distnn.training.vectors import vector_bytes

Array = NDArray[Any]

DECAY = "decay"  # the state vector with alpha for each weight and 0 for each bias


class L2(Optimizer):
    """An optimizer with scikit-learn's L2 term alpha / 2 * |W|^2 / b, on weights, not on biases.

    The mean gradient of a batch gets alpha / b * w, with b the batch's items, or the sum of their
    weights. A vector that `start` fills holds which elements are biases.

    Attributes:
        items: b of the next step.
    """

    def __init__(self, optimizer: Optimizer, alpha: float, batch_size: int) -> None:
        self.optimizer, self.alpha = optimizer, alpha
        self.learning_rate, self.weight_decay = optimizer.learning_rate, optimizer.weight_decay
        self.name = optimizer.name  # type: ignore[misc]
        self.state = (DECAY, *optimizer.state)  # type: ignore[misc]
        self._usual = self.items = float(batch_size)

    def rule(self, t: int, learning_rate: float, dtype: Any) -> Rule:
        """See `Optimizer.rule`."""
        follow = self.optimizer.rule(t, learning_rate, dtype)
        is_usual = self.items == self._usual
        # rows that all weigh nothing have no gradient, and no term either
        factor = np.array(self._usual / self.items if self.items else 0, dtype)

        def update(w: Array, g: Array, state: Sequence[Array], scratch: Sequence[Array]) -> None:
            decay, *others = state
            np.multiply(w, decay, scratch[0])
            if not is_usual:
                np.multiply(scratch[0], factor, scratch[0])
            np.add(g, scratch[0], g)
            follow(w, g, others, scratch)

        return update

    def start(self, network: Network) -> dict[str, Array]:
        """The state vectors before the first step."""
        state = {name: np.zeros(network.size, network.dtype) for name in self.state}
        for W in network.views(state[DECAY]):
            W[1:] = self.alpha / self._usual
        return state


class SparseRows(Dataset):
    """Rows that stay sparse: a slice's are written out when their turn comes.

    Args:
        X: CSR array (n, n_0) of scipy; the same on every rank, each of which has its own.
    """

    def __init__(self, X: Any, T: Array, classes: int) -> None:
        from scipy.sparse import csr_array, hstack

        ones = csr_array(np.ones((X.shape[0], 1), X.dtype))
        self._rows = hstack([ones, X], format="csr")
        super().__init__(np.empty((X.shape[0], 0), X.dtype), T, classes)

    def gather(self, rows: NDArray[np.intp], A0: Array, T: Array) -> None:
        """See `Dataset.gather`."""
        self._rows[rows].toarray(out=A0)
        super().gather(rows, np.empty((len(rows), 0), A0.dtype), T)


class Fit:
    """One fit or partial_fit: the same on all ranks, which all call it.

    Args:
        config: batch_size, slices, seed and shuffle are used.
        state: on rank 0, the optimizer's state vectors.

    Attributes:
        position, state: those reached, after `run`.
        is_interrupted: whether a process by itself was interrupted by its user, which ends `run`.
    """

    def __init__(
        self,
        comm: Communicator,
        network: Network,
        optimizer: L2,
        config: TrainConfig,
        position: Position,
        state: dict[str, Array],
    ) -> None:
        self.comm, self.network, self.optimizer, self.config = comm, network, optimizer, config
        self.position, self.state = position, state
        self.is_interrupted = False

    def run(
        self, X: Any, T: Array, weights: Array | None, after_epoch: Callable[[float], bool]
    ) -> None:
        """Train until `after_epoch` says that it is enough.

        Args:
            X: (n, n_0) checked rows, dense or CSR; T: (n,) class numbers or (n, n_L) targets.
            weights: (n,) of the rows, or None.
            after_epoch: is given the mean loss of an epoch, without the L2 term, the same on every
                rank, and must return the same on every rank. The network has the new weights.

        Raises:
            DistnnError: on every rank.
        """
        values, seconds = self._must_agree(X, T, weights), self.config.stall_timeout
        self.comm.status.stall_timeout = seconds
        with ExitStack() as stack:
            with agreed(mpi_of(self.comm), "fit", seconds, None, values):
                stack.enter_context(watched(self.comm, ends_job=False))
            stack.enter_context(np.errstate(all="ignore"))
            agree_on_blas(self.comm, self.config.blas, self.config.precision)
            size = shared_bytes(len(T), RowLayout.of(self.network, 0))
            size += vector_bytes(self.network, self.optimizer, self.comm, self.config)
            comm = self.comm.with_memory(size)
            memory = SharedMemory(comm)
            with one_thread_per_rank(in_use()), closing(memory):
                rows = _dataset(comm, memory, self.network, X, T, weights)
                session = Session(comm, self.network, self.optimizer, self.config)
                try:
                    session.start(self.network.vector, rows)
                    session.restore(self.state, self.position)
                    try:
                        self._epochs(session, weights, after_epoch)
                    except KeyboardInterrupt:
                        if comm.size > 1:
                            raise
                        self.is_interrupted = True
                    session.collect_state()
                except DistnnError:
                    session.close()
                    raise
                finally:
                    session.end_thread()
                self.position = session.position
                if comm.is_first:
                    self.state = {name: v.copy() for name, v in session.exchange.state.items()}
                session.close()

    def _epochs(
        self,
        session: Session,
        weights: Array | None,
        after_epoch: Callable[[float], bool],
    ) -> None:
        position, n, is_enough = session.position, len(session.dataset), False
        starts = range(0, n, self.config.batch_size)
        items = [float(min(self.config.batch_size, n - start)) for start in starts]
        while not is_enough:
            steps = session.begin_epoch(epochs=1)
            if weights is not None:
                items = self._total_weights(weights, position.epoch)
            while position.step < steps:
                self.optimizer.items = items[position.step]
                session.step()
            loss = session.end_epoch()["train_loss"]
            is_enough = after_epoch(loss)
        session.check_finite()

    def _total_weights(self, weights: Array, epoch: int) -> list[float]:
        """What the gradients of each batch of an epoch are divided by."""
        n, config = len(weights), self.config
        order = epoch_order(n, config.seed, epoch) if config.shuffle else slice(None)
        starts = np.arange(0, n, config.batch_size)
        return np.add.reduceat(weights[order].astype(float), starts).tolist()

    def _must_agree(self, X: Any, T: Array, weights: Array | None) -> dict[str, Any]:
        """What would leave ranks waiting for one another, or their results different."""
        values = {
            "options": self.config.to_dict() | {"blas": ""},
            "network": self.network.config(),
            "shape of X": list(X.shape),
            "shape of y": list(T.shape),
        }
        if self.comm.size == 1:
            return values
        if not isinstance(X, np.ndarray):  # of dense rows those of rank 0 are used
            values["X and y"] = _digest(X.indptr, X.indices, X.data, T)
        return values | {"sample_weight": "" if weights is None else _digest(weights)}


def _dataset(
    comm: Communicator,
    memory: SharedMemory,
    network: Network,
    X: Any,
    T: Array,
    weights: Array | None,
) -> Dataset:
    """The rows as a session takes them. Collective; of dense ones those of rank 0 are used."""
    classes = network.layers[-1] if T.ndim == 1 else 0
    targets = T[:, np.newaxis] if T.ndim == 1 else T
    if not isinstance(X, np.ndarray):
        dataset: Dataset = SparseRows(X, targets, classes)
    else:
        dataset = allocate(memory, len(X), RowLayout.of(network, classes))
        if comm.is_first:
            dataset.X[:, 0] = 1
            dataset.X[:, 1:] = X
            dataset.T[:] = targets
        share(comm, dataset)
    dataset.weights = weights
    return dataset


def _digest(*arrays: Array) -> str:
    hashed = hashlib.sha1(usedforsecurity=False)
    for array in arrays:
        hashed.update(np.ascontiguousarray(array).data.cast("B"))
    return hashed.hexdigest()
