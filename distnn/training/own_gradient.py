"""Training of any model whose gradient the caller computes: the distributed core without a network.

A model is a flat vector theta and a function that gives, for some rows, the sum of their losses and
the gradient of that sum. Slices, the ordered sum, shared vectors, optimizers, checkpoints and the
watchdog are those of `Trainer`; the two differ in what computes the gradient of a slice.
"""

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distnn.blas_threads import one_thread_per_rank
from distnn.checks import LARGEST_COUNT, choice, instance, nearest, number
from distnn.config.options import ARRAYS, TrainConfig
from distnn.errors import InputError
from distnn.nn.network import Network
from distnn.nn.optimizers import Adam, Optimizer
from distnn.parallel.comm.communicator import Communicator, mpi_of
from distnn.parallel.comm.shared_memory import SharedMemory, needed_bytes
from distnn.parallel.comm.status import STALL_TIMEOUT
from distnn.parallel.reduction.exchange import Exchange
from distnn.parallel.reduction.partition import slice_rows
from distnn.parallel.reduction.wire import CHUNK, Wire
from distnn.parallel.watchdog.watchdog import watched
from distnn.run.position import Position
from distnn.training.batches import check_growth
from distnn.training.consistency import agreed, check_run_dir, joined, must_agree
from distnn.training.dataset import Dataset, EpochOrder, order_spec
from distnn.training.factory import check_wire
from distnn.training.loop import Loop, Record
from distnn.training.session import Session
from distnn.training.slices import check_slices, chosen_slices
from distnn.training.vectors import vector_bytes

if TYPE_CHECKING:  # what writes files is loaded where it does
    from distnn.training.gradient_files import GradientFiles

Array = NDArray[Any]
Gradient = Callable[[Array, NDArray[np.intp]], tuple[float, ArrayLike]]
"""gradient(theta, rows) -> (loss_sum, gradient_sum), see `GradientTrainer`."""

FAILURES = ("raise", "abort")
KEYWORDS = (
    "batch_size", "slices", "seed", "shuffle", "reduce", "wire", "update", "clip_norm", "schedule",
    "warmup", "warmup_epochs", "scale_learning_rate", "base_batch", "batch_warmup_epochs",
    "run_dir", "resume", "checkpoint_every", "keep", "progress", "tracker", "stall_timeout",
)  # fmt: skip
DTYPES = ("float32", "float64")


class GradientTrainer:
    """Minimises the mean of a loss over n rows, data-parallel. Every method is collective.

    The result depends on the arguments and the number of slices, not on the number of ranks, if
    the function's result depends on its arguments alone, to the last bit.

    Args:
        theta: (size,) float32 or float64, the vector to start from; rank 0's is used.
        gradient: called as ``gradient(theta, rows)`` with the vector (size,), read-only, and the
            numbers (b,) of some rows, of 0 ... n-1; b may be 0. Returns the sum of the losses of
            these rows, and the gradient of that sum (size,). Each rank calls it for its slices of
            each batch; where the rows are is its own affair.
        n: how many rows there are.
        optimizer: None means `Adam()`.
        comm, on_failure: as of `Trainer`. An error that `gradient` raises on one rank rises there,
            and `RankFailed` on the others; a rank that exits or hangs in it ends the job, the
            latter after `stall_timeout`.

    Keywords, as of `Trainer`: those of KEYWORDS.

    Attributes:
        theta: the vector reached, on every rank; the trainer's own copy.
        position: how far it is.

    Raises:
        InputError: an argument cannot be used; an optimizer that works on whole matrices; more
            ranks than slices.
    """

    def __init__(
        self,
        theta: ArrayLike,
        gradient: Gradient,
        n: int,
        optimizer: Optimizer | None = None,
        *,
        comm: Any = None,
        on_failure: str = "raise",
        **options: Any,
    ) -> None:
        seconds, ranks = STALL_TIMEOUT, mpi_of(comm).size
        problem: InputError | None = None
        values: dict[str, Any] = {}
        try:
            config = _config(options)
            seconds = config.stall_timeout
            self.theta, self.gradient = _vector(theta), gradient
            if not callable(gradient):
                raise InputError("is no function", "gradient", "give gradient(theta, rows)")
            self.n = number(n, "n", whole=True, least=1, most=LARGEST_COUNT)
            self.optimizer = _elementwise(Adam() if optimizer is None else optimizer)
            self.on_failure = choice(on_failure, "on_failure", FAILURES)
            check_wire(config.wire, config.reduce, self.theta.dtype.name)
            slices = chosen_slices(config.slices, config.batch_size, ranks)
            check_slices(slices, ranks)
            check_growth(config)
            self.config = dataclasses.replace(config, slices=slices)
            values = self._must_agree()
        except InputError as error:
            problem = error
        with joined(comm, "GradientTrainer(...)", seconds, problem, values) as self.comm:
            check_run_dir(self.comm, self.config.run_dir)
        self.position = Position()
        self._state: dict[str, Array] = {}
        self._files: GradientFiles | None = None  # on rank 0, after the first fit
        self._until, self._stop = 0, 0

    def fit(self, epochs: int) -> list[Record]:
        """Train for some epochs; a second call goes on where the first one ended.

        Args:
            epochs: passes over the rows; with `resume`, less what the run has of them already.

        Returns:
            One record per epoch: epoch, step, learning_rate, train_loss (the mean over the rows, as
            they were trained on). The same on every rank.

        Raises:
            DistnnError: on every rank, as `Trainer.fit` does.
            RankFailed: another rank failed, as by an error of its `gradient`.
        """
        problem: InputError | None = None
        try:
            number(epochs, "epochs", whole=True, least=1, most=LARGEST_COUNT)
        except InputError as error:
            problem = error
        seconds = self.comm.status.stall_timeout = self.config.stall_timeout
        values = self._must_agree() | {"epochs": epochs}
        with ExitStack() as stack:
            with agreed(mpi_of(self.comm), "GradientTrainer.fit", seconds, problem, values):
                stack.enter_context(watched(self.comm, ends_job=self.on_failure == "abort"))
            needed = needed_bytes([order_spec(self.n)])
            model = cast(Network, FlatVector(self.theta))
            needed += vector_bytes(model, self.optimizer, self.comm, self.config)
            comm = self.comm.with_memory(needed)
            try:
                comm.on_first(lambda: self._open(epochs))
                with one_thread_per_rank():
                    return self._run(comm, epochs)
            finally:
                self._stop = 0
                if self._files is not None:
                    self._files.close()

    def request_stop(self) -> None:
        """Ask for a stop at the next step boundary; any rank may, all ranks stop together."""
        self._stop = 1

    def open_session(self, comm: Communicator) -> Session:
        """See `Trainer.open_session`; theta is written when it is closed."""

        def make_work(vector: Any, exchange: Exchange, items: int, observe: None) -> GradientWork:
            return GradientWork(self.gradient, exchange, items)

        model = cast(Network, FlatVector(self.theta))
        session = Session(comm, model, self.optimizer, self.config, make_work)
        session.start(self.theta, cast(Dataset, RowNumbers(self.n)))
        if self.position.steps:
            session.restore(self._state, self.position)
        return session

    def _run(self, comm: Communicator, epochs: int) -> list[Record]:
        files = self._files
        position = comm.broadcast(comm.on_first(lambda: files and files.position()))
        if position is not None:
            self.position = Position(**position)
            if files is not None:
                self.theta[:], self._state = files.vectors()
        until = self._until = min(self._until, self.position.epoch) + epochs
        session = self.open_session(comm)
        if (self.position.epoch, self.position.step) > (until, 0):
            files = None  # the run is further than this fit goes

        def begin() -> None:
            if files is not None:
                files.begin(self.config, session, until, self.n)

        with session.closing(self._keep):  # which writes into self.theta
            comm.on_first(begin)
            comm.status.stop = self.request_stop
            loop = Loop(session, None, until, cast(Any, files), lambda: self._stop)
            records = loop.run()
            if files is not None:
                files.finish_trackers("finished")
        return records

    def _keep(self, position: Position, state: dict[str, Array]) -> None:
        """Keep what a session has reached: the next one begins there."""
        self.position, self._state = position, state

    def _open(self, epochs: int) -> None:
        """Rank 0: open the run's directory at the first fit, claim it again at the others."""
        if self._files is not None:
            self._files.claim()
        elif self.config.run_dir is None:
            if self.config.tracker is not None:
                raise InputError("there is no run to track", "tracker", "give run_dir, too")
        else:
            from distnn.training.gradient_files import GradientFiles

            config = dataclasses.replace(self.config, epochs=epochs)
            about = {"size": len(self.theta), "dtype": self.theta.dtype.name, "rows": self.n}
            optimizer = {"name": self.optimizer.name, **self.optimizer.config()}
            self._files = GradientFiles(config, about | {"optimizer": optimizer})

    def _must_agree(self) -> dict[str, Any]:
        theta = [len(self.theta), self.theta.dtype.name]
        return must_agree(self.config, self.optimizer, self.on_failure, theta=theta, n=self.n)


class FlatVector:
    """What a session needs of a model: one vector, and how it may be cut.

    Attributes:
        shapes: of the matrices that the vector holds: one of a single column.
    """

    has_weights = True

    def __init__(self, vector: Array) -> None:
        self.vector, self.dtype = vector, vector.dtype
        self.size = len(vector)
        self.shapes = ((self.size, 1),)

    @property
    def weights(self) -> list[Array]:
        """The vector, as the one matrix there is."""
        return [self.vector[:, np.newaxis]]

    def bind(self, vector: Array) -> None:
        """Use this vector (size,) from now on."""
        self.vector = vector


class RowNumbers:
    """Rows that are their numbers; the caller's function has what belongs to them."""

    def __init__(self, n: int) -> None:
        self._n = n
        self.weights = None
        self.total_weight = n

    def __len__(self) -> int:
        return self._n

    def order(self, memory: SharedMemory) -> EpochOrder:
        """See `Dataset.order`."""
        return EpochOrder(memory, self._n)

    def gather(self, rows: NDArray[np.intp], out: NDArray[np.intp]) -> None:
        """The numbers themselves."""
        out[:] = rows


class _Stack(NamedTuple):
    """One slice, as `Session.step` takes it, see `slice_work.Stack`."""

    run: "_GradientCall"
    slices: int
    items: slice
    A0: Array
    T: None
    rows: tuple[Array]
    is_first: bool


class _GradientCall:
    """The caller's function on one slice, in place of a forward and a backward pass."""

    def __init__(
        self,
        function: Callable[[NDArray[np.intp]], tuple[float, ArrayLike]],
        exchange: Exchange,
        wire: Wire,
        out: Array,
        sums: Any,
    ) -> None:
        self._function, self._exchange, self._wire, self._out = function, exchange, wire, out
        parts = [slice(lo, lo + CHUNK) for lo in range(0, len(out), CHUNK)]
        self._parts = [
            (part, out[part], [(left[part], right[part]) for left, right in sums]) for part in parts
        ]
        self._gradient: Array = out

    def forward(
        self, rows: Array, T: None, dropout: Any, before_weights: Any, is_first: bool, w: None
    ) -> float:
        """The sum of the losses of the rows; the gradient is kept for `run`."""
        if before_weights is not None:
            before_weights(1, 0)
        with np.errstate(all="warn"):  # as if it were called without distnn
            loss, gradient = self._function(rows)
        found = np.asarray(gradient)
        if found.shape != self._out.shape:
            what = f"has shape {found.shape}, theta {self._out.shape}"
            raise ValueError(f"the gradient {what}: return (loss_sum, gradient_sum)")
        self._gradient = found
        return float(loss)

    def run(self, scale: Array, after_gradient: Any) -> None:
        """The gradient of the mean into its vector, and the sums that follow from it.

        Part by part: what is added up is still in the cache.
        """
        gradient, wire = self._gradient, self._wire
        for part, out, sums in self._parts:
            np.multiply(gradient[part], scale, out, casting="same_kind")
            wire.round(out)
            for left, right in sums:
                wire.add(left, right, left)
        self._gradient = self._out
        if after_gradient is not None:
            row_ends, _ = self._exchange.layout.grids[0]
            for block in range(len(row_ends)):
                after_gradient(1, block)


class GradientWork:
    """The slices of this rank, each a call of the caller's function; see `SliceWork`."""

    def __init__(self, gradient: Gradient, exchange: Exchange, items: int) -> None:
        theta = exchange.weights.view()  # the same object at every call
        theta.flags.writeable = False
        self._function, self._exchange = partial(gradient, theta), exchange
        self._wire = exchange.layout.make_wire()
        self._work: dict[int, list[tuple[list[_Stack], _GradientCall, bool]]] = {}

    def for_batch(self, items: int) -> list[tuple[list[_Stack], _GradientCall, bool]]:
        """The work on a batch of so many items, in order."""
        if items not in self._work:
            self._work[items] = [self._prepare(task, items) for task in self._exchange.tasks]
        return self._work[items]

    def _prepare(self, task: Any, items: int) -> tuple[list[_Stack], _GradientCall, bool]:
        exchange = self._exchange
        vectors = exchange.vectors
        sums = [(vectors[left], vectors[right]) for left, right in task.additions]
        call = _GradientCall(self._function, exchange, self._wire, vectors[task.vector], sums)
        lo, hi = slice_rows(task.slice, exchange.layout.slices, items)
        numbers = np.empty(hi - lo, np.intp)
        stack = _Stack(
            call, task.slice, slice(lo, hi), numbers, None, (numbers,), task is exchange.tasks[0]
        )
        return [stack], call, task is exchange.tasks[-1]


def _config(options: dict[str, Any]) -> TrainConfig:
    """The options; a run that goes on must have been started with all of them."""
    for name in options.keys() - set(KEYWORDS):
        raise InputError("unknown argument", name, nearest(name, KEYWORDS))
    config = TrainConfig.from_keywords(**options)
    given = frozenset(config.to_dict()) - {"data", "epochs"}
    return dataclasses.replace(config, data=ARRAYS, given=given)


def _elementwise(optimizer: Any) -> Optimizer:
    rule = instance(optimizer, Optimizer, "optimizer", "Adam(0.001)")
    if rule.scope != "element":
        remedy = "use one that updates each number by itself, as Adam"
        raise InputError(f"{rule.name} is for matrices", "optimizer", remedy)
    return cast(Optimizer, rule)


def _vector(theta: ArrayLike) -> Array:
    vector = np.array(theta)
    if vector.ndim != 1 or vector.dtype.name not in DTYPES or not vector.size:
        what = f"is {vector.dtype} of shape {vector.shape}"
        raise InputError(what, "theta", "give a vector (size,) of float32 or float64")
    if not np.isfinite(vector).all():
        raise InputError("holds NaN or infinity", "theta", "start from finite numbers")
    return vector
