"""MLPClassifier and MLPRegressor: scikit-learn's parameters and attributes, distnn's training."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.multiclass import type_of_target, unique_labels
from sklearn.utils.validation import column_or_1d, validate_data

from distnn.nn.network import probabilities_of
from distnn.sklearn.base import MLP
from distnn.sklearn.parameters import FLOATS, BadParameter, regression_loss_of

Array = NDArray[Any]


class MLPClassifier(ClassifierMixin, MLP):
    """scikit-learn's `MLPClassifier` (its parameters are explained there), trained on all ranks.

    Under mpirun every rank calls `fit` with the same rows and gets the same weights; the same bits
    on any number of ranks up to `slices`. `predict` and what else only reads is each rank's own.

    Parameters that scikit-learn has not, or not so:
        activation: also distnn's other activations, by name.
        solver: "sgd", "adam", or another of distnn's optimizers by name; no "lbfgs".
        slices: what a batch is cut into, see the package's README; None: 8, or one per rank.
        comm: an MPI communicator; None means all ranks of the program.

    Attributes: those of scikit-learn's, but for lbfgs. `coefs_` may be changed between calls.
    """

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """One pass over the rows, see `fit`; `classes` (all there will be) at the first call."""
        is_first = not hasattr(self, "classes_")
        if is_first and classes is None:
            raise BadParameter("is missing at the first partial_fit", "classes")
        given = None if classes is None else unique_labels(classes)
        if given is not None and not is_first and not np.array_equal(self.classes_, given):
            raise BadParameter(f"{given} are not those of the first call", "classes")
        return self._fit(X, y, sample_weight, incremental=True, classes=given)

    def predict(self, X: Any) -> Array:
        """The class of each row (n,); with several labels, which of them it has (n, labels)."""
        return self._decided(self._outputs(X))

    def predict_proba(self, X: Any) -> Array:
        """The probability of each class (n, classes), or of each label (n, labels)."""
        outputs = self._outputs(X)
        return outputs if self._is_multilabel else probabilities_of(outputs)

    def predict_log_proba(self, X: Any) -> Array:
        """Logarithms of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def _checked(self, X: Any, y: Any, is_new: bool, given: Array | None) -> tuple[Any, Array]:
        X, y = validate_data(
            self, X, y, accept_sparse="csr", multi_output=True, dtype=FLOATS, reset=is_new
        )
        if hasattr(y, "toarray"):
            y = y.toarray()
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        kind = type_of_target(y, input_name="y", raise_unknown=True)
        if kind not in ("binary", "multiclass", "multilabel-indicator"):
            raise BadParameter(f"Unknown label type: {kind}", "y", "give classes")
        is_multilabel = kind == "multilabel-indicator"
        classes = unique_labels(y) if given is None else given
        if is_new:
            self.classes_, self._is_multilabel = classes, is_multilabel
            many = is_multilabel or len(classes) > 2
            self.n_outputs_ = len(classes) if many else 1
        elif self.warm_start and not np.array_equal(classes, self.classes_):
            what = "warm_start can only be used where `y` has the same classes as in the previous"
            found = f"call to fit. Previously got {self.classes_}, `y` has {classes}"
            raise BadParameter(f"{what} {found}", "y")
        elif is_multilabel != self._is_multilabel or np.setdiff1d(classes, self.classes_).size:
            what = f"has classes {classes}, which are not in {self.classes_}"
            raise BadParameter(what, "y", "with partial_fit they stay the same")
        if is_multilabel:
            if np.setdiff1d(unique_labels(y), self.classes_).size:
                raise BadParameter(f"has {y.shape[1]} labels", "y", "give as many as classes")
            return X, y.astype(X.dtype)
        if is_new and np.setdiff1d(unique_labels(y), self.classes_).size:
            raise BadParameter("has classes that are not in classes", "y")
        numbers = np.searchsorted(self.classes_, y)
        return X, numbers if self.n_outputs_ > 1 else numbers[:, None].astype(X.dtype)

    def _output_and_loss(self) -> tuple[str, str]:
        if self._is_multilabel or self.n_outputs_ == 1:
            return "sigmoid", "binary-cross-entropy"
        return "softmax", "cross-entropy"

    def _decided(self, outputs: Array) -> Array:
        if self._is_multilabel:
            return (outputs > 0.5).astype(int)
        if self.n_outputs_ > 1:
            return self.classes_[outputs.argmax(axis=1)]
        return self.classes_[(outputs[:, 0] > 0.5).astype(int) * (len(self.classes_) - 1)]

    def _score_of(self, outputs: Array, T: Array, weights: Array | None) -> float:
        decided = self._decided(outputs)
        given = T.astype(int) if self._is_multilabel else self.classes_[T.reshape(-1).astype(int)]
        return float(accuracy_score(given, decided, sample_weight=weights))

    def _reported(self, loss: float) -> float:
        return loss

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, MLP):
    """scikit-learn's `MLPRegressor`, trained on all ranks; see `MLPClassifier`.

    Parameters that scikit-learn has not, or not so, besides those of `MLPClassifier`:
        loss: "squared_error", or distnn's "mean-absolute-error" or "huber".
    """

    def __init__(
        self,
        loss: str = "squared_error",
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
        self.loss = loss
        super().__init__(
            hidden_layer_sizes,
            activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            slices=slices,
            comm=comm,
        )

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """One pass over the rows, see `fit`."""
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> Array:
        """The outputs (n,), or (n, outputs)."""
        outputs = self._outputs(X)
        return outputs.reshape(-1) if outputs.shape[1] == 1 else outputs

    def _checked(self, X: Any, y: Any, is_new: bool, given: None) -> tuple[Any, Array]:
        X, y = validate_data(
            self, X, y, accept_sparse="csr", multi_output=True, y_numeric=True, dtype=FLOATS,
            reset=is_new,
        )  # fmt: skip
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        T = y.astype(X.dtype, copy=False).reshape(len(y), -1)
        if is_new:
            self.n_outputs_ = T.shape[1]
        elif T.shape[1] != self.n_outputs_:
            raise BadParameter(f"has {T.shape[1]} outputs, and had {self.n_outputs_} before", "y")
        return X, T

    def _output_and_loss(self) -> tuple[str, str]:
        return "identity", regression_loss_of(self.loss)

    def _score_of(self, outputs: Array, T: Array, weights: Array | None) -> float:
        return float(r2_score(T, outputs, sample_weight=weights))

    def _reported(self, loss: float) -> float:
        return loss / self.n_outputs_  # as scikit-learn: the mean over outputs, too
