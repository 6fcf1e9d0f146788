"""What the estimators have in common: one fit, its epochs and what is kept of them."""

import warnings
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from distnn.errors import DivergenceError
from distnn.sklearn.parameters import (
    FLOATS,
    BadParameter,
    Diverged,
    activation_of,
    check_parameters,
    draw_weights,
    rule_of,
)

if TYPE_CHECKING:
    from distnn.nn.network import Network
    from distnn.sklearn.fitting import Fit

Array = NDArray[Any]

LEAST_RATE = 1e-6  # below which learning_rate="adaptive" divides no further, as in scikit-learn


class MLP(BaseEstimator):
    """What both estimators have in common: all parameters but one, and how they are fitted."""

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        slices: int | None = None,
        comm: Any = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.slices = slices
        self.comm = comm

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on rows X (n, features), dense or sparse, and targets y. Collective.

        Args:
            sample_weight: (n,) what each row's loss is multiplied with.

        Raises:
            ValueError: a parameter, X or y cannot be used.
            InputError: ranks differ in what they gave; more ranks than slices.
            DivergenceError, which is a ValueError here: a loss or a weight is not finite. With
                early_stopping the training ends there, with the best weights before.
        """
        return self._fit(X, y, sample_weight, incremental=False)

    # --- one fit -------------------------------------------------------------------------------

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, *, incremental: bool, classes: Any = None
    ) -> Self:
        check_parameters(self)
        is_new = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        X, T = self._checked(X, y, is_new, classes)
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(
                sample_weight, X, dtype=np.float64, ensure_non_negative=True
            )
        from distnn.parallel.comm.communicator import communicator_of

        comm = communicator_of(self.comm)
        if is_new:
            self._begin(comm, X, T)
        held = None
        if self.early_stopping:
            if incremental:
                what = "partial_fit does not support early_stopping=True"
                raise BadParameter(what, "early_stopping", "there would be no validation set")
            X, held, T, weights = self._hold_out(X, T, weights)
        fit = self._made_fit(comm, X, is_new or not incremental)
        self._n, self.n_iter_ = len(T), 0
        self._stopped = False
        self._best: Array | None = None
        try:
            fit.run(X, T, weights, lambda loss: self._after_epoch(fit, loss, held) or incremental)
        except DivergenceError as error:
            if self._best is None:
                raise Diverged(error) from None
            self._count(fit, np.nan, np.nan)
            self._stopped = True
            warnings.warn(f"{error}; the best weights stay", ConvergenceWarning, stacklevel=3)
        self._state, self._steps = fit.state, fit.position.steps
        if self._best is not None:
            fit.network.load(self._best)
            self._best = None
        self._take(fit.network)
        if fit.is_interrupted:
            warnings.warn("Training interrupted by user.", stacklevel=3)
        elif not (incremental or self._stopped):
            what = f"max_iter={self.max_iter} iterations reached and the optimization has not"
            warnings.warn(f"{what} converged yet.", ConvergenceWarning, stacklevel=3)
        return self

    def _begin(self, comm: Any, X: Any, T: Array) -> None:
        """Weights, seed and counters of a new training."""
        outputs = self.n_outputs_
        hidden = np.atleast_1d(np.asarray(self.hidden_layer_sizes, dtype=int)).tolist()
        self._widths = [X.shape[1], *hidden, outputs]
        self.n_layers_ = len(self._widths)
        self._dtype = X.dtype.name
        random = check_random_state(self.random_state)
        weights = draw_weights(random, self._widths, self.activation)  # those of rank 0 are used
        self._seed = int(comm.broadcast(int(random.randint(np.iinfo(np.int32).max))))
        network = self._network()
        for W, drawn in zip(network.weights, weights, strict=False):
            W[:] = drawn
        self.out_activation_ = {"sigmoid": "logistic"}.get(network.output, network.output)
        self.t_, self._epochs, self._steps = 0, 0, 0
        self.loss_curve_: list[float] = []
        self._without_improvement = 0
        self.best_loss_: Any = None if self.early_stopping else np.inf
        self.validation_scores_: list[float] | None = [] if self.early_stopping else None
        self.best_validation_score_: Any = -np.inf if self.early_stopping else None
        self._take(network)

    def _made_fit(self, comm: Any, X: Any, restarts: bool) -> "Fit":
        """The training of this call; an optimizer that `restarts` has no memory of earlier ones."""
        from distnn.config.options import TrainConfig
        from distnn.run.position import Position
        from distnn.sklearn.fitting import L2, Fit
        from distnn.training.slices import check_slices, chosen_slices

        n = X.shape[0]
        size = min(200, n) if self.batch_size == "auto" else min(self.batch_size, n)
        if self.batch_size != "auto" and self.batch_size > n:
            warnings.warn(f"batch_size={self.batch_size} clipped to {n} rows", stacklevel=4)
        slices = chosen_slices(self.slices, size, comm.size)
        check_slices(slices, comm.size)
        config = TrainConfig.from_keywords(
            batch_size=size, slices=slices, seed=self._seed, shuffle=bool(self.shuffle)
        )
        network, rule = self._network(), L2(rule_of(self), self.alpha, size)
        network.load(self._packed(network))
        if restarts or set(self._state) - set(rule.state):
            self._steps, self._state, self._rate = 0, {}, float(self.learning_rate_init)
        rule.learning_rate = self._rate
        state = self._state or rule.start(network)
        if comm.is_first and self._state:
            state = state | {"decay": rule.start(network)["decay"]}
        position = Position(epoch=self._epochs, steps=self._steps)
        return Fit(comm, network, rule, config, position, state)

    def _hold_out(self, X: Any, T: Array, weights: Array | None) -> Any:
        """What is trained on, and (rows, targets, weights) of the validation set."""
        is_single = is_classifier(self) and not self._is_multilabel
        arrays = (X, T) if weights is None else (X, T, weights)
        parts = train_test_split(
            *arrays,
            test_size=self.validation_fraction,
            random_state=self._seed,
            stratify=T.reshape(-1) if is_single else None,
        )
        if parts[1].shape[0] < 2:
            what = f"The validation set is too small: {parts[1].shape[0]} rows"
            raise BadParameter(what, "validation_fraction", "give more of it, or more rows")
        train_weights, held_weights = (None, None) if weights is None else parts[4:]
        return parts[0], (parts[1], parts[3], held_weights), parts[2], train_weights

    def _after_epoch(self, fit: "Fit", loss: float, held: Any) -> bool:
        """The figures of an epoch, and whether the training is to end; the same on all ranks."""
        network, comm = fit.network, fit.comm

        def figures() -> list[float]:
            weights = (np.vdot(W[1:], W[1:]) for W in network.weights)
            penalty = 0.5 * self.alpha * float(sum(weights)) * self._batches(fit) / self._n
            score = 0.0 if held is None else self._held_score(network, *held)
            return [self._reported(loss) + penalty, score]

        value, score = comm.broadcast(comm.on_first(figures))
        if np.isnan(score):
            raise DivergenceError("the validation score is not a number")
        self._count(fit, value, score)
        if self.solver == "sgd" and self.learning_rate == "invscaling":
            self._set_rate(fit, self.learning_rate_init / (self.t_ + 1) ** self.power_t)
        if self._without_improvement > self.n_iter_no_change:
            adaptive = self.solver == "sgd" and self.learning_rate == "adaptive"
            if not adaptive or self._rate <= LEAST_RATE:
                self._stopped = True
                return True
            self._set_rate(fit, self._rate / 5)
            self._without_improvement = 0
        return self.n_iter_ >= self.max_iter

    def _held_score(self, network: "Network", X: Any, T: Array, weights: Array | None) -> float:
        """Accuracy or R2 of the validation set; NaN where an output is not finite."""
        outputs = forward(network, X)
        return self._score_of(outputs, T, weights) if np.isfinite(outputs).all() else np.nan

    def _count(self, fit: "Fit", loss: float, score: float) -> None:
        """Keep the figures of an epoch, and compare it with the best so far."""
        self.n_iter_ += 1
        self._epochs += 1
        self.t_ += self._n
        self.loss_ = loss
        self.loss_curve_.append(loss)
        if self.verbose and fit.comm.is_first:
            shown = f", validation score = {score:f}" if self.early_stopping else ""
            print(f"Iteration {self.n_iter_}, loss = {loss:.8f}{shown}")
        if self.early_stopping:
            assert self.validation_scores_ is not None
            self.validation_scores_.append(score)
            improves = score >= self.best_validation_score_ + self.tol
            if self._best is None or score > self.best_validation_score_:
                self.best_validation_score_ = score
                self._best = fit.network.vector.copy()
        else:
            improves = loss <= self.best_loss_ - self.tol
            self.best_loss_ = min(loss, self.best_loss_)
        self._without_improvement = 0 if improves else self._without_improvement + 1

    def _set_rate(self, fit: "Fit", rate: float) -> None:
        self._rate = fit.optimizer.learning_rate = rate

    def _batches(self, fit: "Fit") -> int:
        return -(-self._n // fit.config.batch_size)

    # --- weights -------------------------------------------------------------------------------

    def _network(self) -> "Network":
        from distnn.nn.network import Network

        output, loss = self._output_and_loss()
        activation = activation_of(self.activation)
        return Network(
            self._widths, activation, output, loss, dtype=self._dtype, seed=self._seed,
        )  # fmt: skip

    def _take(self, network: "Network") -> None:
        self.coefs_ = [W[1:].copy() for W in network.weights]
        self.intercepts_ = [W[0].copy() for W in network.weights]

    def _packed(self, network: "Network") -> Array:
        """coefs_ and intercepts_ as one vector."""
        vector = np.empty(network.size, network.dtype)
        for W, coefs, intercepts in zip(
            network.views(vector), self.coefs_, self.intercepts_, strict=True
        ):
            W[0], W[1:] = intercepts, coefs
        return vector

    def _outputs(self, X: Any) -> Array:
        """The network's outputs (n, n_outputs_); no other rank takes part."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=FLOATS, reset=False)
        network = self._network()
        network.load(self._packed(network))
        return forward(network, X)

    def __sklearn_clone__(self) -> Self:
        """A communicator is not copied: it is the same ranks."""
        given = self.get_params(deep=False)
        copies = {name: clone(v, safe=False) for name, v in given.items() if name != "comm"}
        return type(self)(**copies, comm=self.comm)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "comm": None}  # ranks are of the running program

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def forward(network: "Network", X: Any) -> Array:
    """The outputs for rows, dense or sparse."""
    from distnn.nn.network import ROWS_AT_ONCE

    if isinstance(X, np.ndarray):
        return network.forward(X)
    parts = range(0, X.shape[0], ROWS_AT_ONCE)
    return np.concatenate([network.forward(X[k : k + ROWS_AT_ONCE].toarray()) for k in parts])
