"""The parameters of the estimators: what may be given, and what it means to distnn."""

import inspect
from collections.abc import Callable, Sequence
from itertools import pairwise
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distnn.checks import LARGEST_COUNT, LARGEST_SEED, choice, number, shown
from distnn.config.options import ACTIVATIONS, MOST_SLICES, OPTIMIZERS
from distnn.errors import DivergenceError, InputError
from distnn.nn.optimizers import OPTIMIZERS as RULES
from distnn.nn.optimizers import SGD, Adam, Momentum, Nesterov, Optimizer

FLOATS = (np.float64, np.float32)  # the first where rows are neither
RATES = ("constant", "invscaling", "adaptive")
LOSSES = {
    "squared_error": "half-squared-error",
    "mean-absolute-error": "mean-absolute-error",
    "huber": "huber",
}
"""The regressor's losses; scikit-learn's squared_error is half the square."""


class BadParameter(InputError, ValueError):
    """A parameter or array that cannot be used, as scikit-learn reports one."""


class Diverged(DivergenceError, ValueError):
    """A training that diverged, as scikit-learn reports one."""

    def __init__(self, error: DivergenceError) -> None:
        what = "Solver produced non-finite parameter weights. The input data may contain large"
        super().__init__(f"{what} values and need to be preprocessed. {error}")


def check_parameters(estimator: Any) -> None:
    """Check what was given to the constructor; raises a BadParameter that names it."""
    try:
        for name, check in PARAMETERS.items():
            if hasattr(estimator, name):
                check(getattr(estimator, name), name)
    except BadParameter:
        raise
    except InputError as error:
        raise BadParameter(error.what, error.where, error.remedy) from None


def activation_of(name: str) -> str:
    """A hidden layer's activation as distnn calls it: scikit-learn says logistic for sigmoid."""
    return "sigmoid" if name == "logistic" else name


def draw_weights(
    random: np.random.RandomState, widths: Sequence[int], activation: str
) -> list[NDArray[np.float64]]:
    """The weights (1 + n_in, n_out) of each layer that scikit-learn starts with, row 0 the bias.

    U(-r, r), r = sqrt(6 / (n_in + n_out)), or sqrt(2 / ...) with logistic (Glorot and Bengio 2010).
    None at all for an activation that scikit-learn has not: distnn draws its own.
    """
    if activation not in ("identity", "logistic", "tanh", "relu"):
        return []
    weights = []
    for n_in, n_out in pairwise(widths):
        r = np.sqrt((2 if activation == "logistic" else 6) / (n_in + n_out))
        W = random.uniform(-r, r, (n_in, n_out))
        weights.append(np.vstack([random.uniform(-r, r, n_out), W]))
    return weights


def regression_loss_of(name: str) -> str:
    """A regressor's loss as distnn calls it."""
    return LOSSES[name]


def rule_of(estimator: Any) -> Optimizer:
    """The update rule of an estimator, without its L2 term."""
    rate = float(estimator.learning_rate_init)
    if estimator.solver == "sgd":
        if estimator.momentum == 0:
            return SGD(rate)
        kind = Nesterov if estimator.nesterovs_momentum else Momentum
        return kind(rate, momentum=estimator.momentum)
    if estimator.solver == "adam":
        return Adam(rate, 0.0, estimator.beta_1, estimator.beta_2, estimator.epsilon)
    rule = RULES[estimator.solver]
    theirs = {"momentum": "momentum", "beta1": "beta_1", "beta2": "beta_2"}
    taken = [name for name in theirs if name in inspect.signature(rule).parameters]
    return rule(rate, **{name: getattr(estimator, theirs[name]) for name in taken})


def _number(**bounds: Any) -> Callable[[Any, str], object]:
    return lambda value, name: number(value, name, **bounds)


def _choice(*known: str) -> Callable[[Any, str], object]:
    return lambda value, name: choice(value, name, known)


def _flag(value: Any, name: str) -> None:
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{shown(value)} is not True or False", name)


def _widths(value: Any, name: str) -> None:
    try:
        for width in np.atleast_1d(np.asarray(value)).tolist():
            number(width, name, whole=True, least=1, most=LARGEST_COUNT)
    except (TypeError, ValueError):
        raise InputError(f"{shown(value)} are no widths", name, "give (100,) or (64, 32)") from None


def _solver(value: Any, name: str) -> None:
    if value == "lbfgs":
        what = "lbfgs goes through all rows for each step and has no batches"
        raise InputError(what, name, "use adam or sgd, or scikit-learn's own for small data")
    choice(value, name, OPTIMIZERS)


def _batch_size(value: Any, name: str) -> None:
    if not (isinstance(value, str) and value == "auto"):
        number(value, name, whole=True, least=1, most=LARGEST_COUNT)


def _slices(value: Any, name: str) -> None:
    if value is not None:
        number(value, name, whole=True, least=1, most=MOST_SLICES)


def _verbose(value: Any, name: str) -> None:
    if not isinstance(value, Integral | bool | np.bool_):
        raise InputError(f"{shown(value)} is not True, False or a whole number", name)


def _patience(value: Any, name: str) -> None:
    if not (isinstance(value, Real) and value == np.inf):
        number(value, name, whole=True, least=1)


_share = _number(least=0, below=1)
PARAMETERS: dict[str, Callable[[Any, str], object]] = {
    "hidden_layer_sizes": _widths,
    "activation": _choice("logistic", *ACTIVATIONS),
    "solver": _solver,
    "loss": _choice(*LOSSES),
    "alpha": _number(least=0),
    "batch_size": _batch_size,
    "learning_rate": _choice(*RATES),
    "learning_rate_init": _number(above=0),
    "power_t": _number(least=0),
    "max_iter": _number(whole=True, least=1, most=LARGEST_SEED),
    "shuffle": _flag,
    "tol": _number(least=0),
    "verbose": _verbose,
    "warm_start": _flag,
    "momentum": _share,
    "nesterovs_momentum": _flag,
    "early_stopping": _flag,
    "validation_fraction": _share,
    "beta_1": _share,
    "beta_2": _share,
    "epsilon": _number(above=0),
    "n_iter_no_change": _patience,
    "slices": _slices,
}
