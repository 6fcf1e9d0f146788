"""scikit-learn's own tests of its multi-layer perceptrons, run with distnn's in their place.

The module of the installed version is imported with its two names standing for the classes here.
Where a test takes lbfgs to get somewhere quickly, and is about something else, adam goes there.
"""

import importlib
from typing import Any

import pytest

pytest.importorskip(
    "sklearn", reason="scikit-learn is not installed: pip install 'distnn[sklearn]'"
)

import sklearn.neural_network

import distnn.sklearn

pytestmark = pytest.mark.filterwarnings("ignore")  # what theirs does not look at is no error

NO_LBFGS = "is about lbfgs, which distnn has not"
INTERNALS = "reads or sets private attributes of scikit-learn's class"
LEFT_OUT = {
    "test_fit": f"{INTERNALS}; one step is compared in test_estimators.py",
    "test_gradient": f"{INTERNALS}; gradients are checked numerically in tests/nn",
    "test_learning_rate_warmstart": INTERNALS,
    "test_adaptive_learning_rate": INTERNALS,
    "test_n_iter_no_change": INTERNALS,
    "test_n_iter_no_change_inf": INTERNALS,
    "test_lbfgs_classification": NO_LBFGS,
    "test_lbfgs_classification_maxfun": NO_LBFGS,
    "test_lbfgs_regression": NO_LBFGS,
    "test_lbfgs_regression_maxfun": NO_LBFGS,
    "test_partial_fit_errors": f"{NO_LBFGS}; what is not, is in test_estimators.py",
    "test_mlp_vs_poisson_glm_equivalent": "is about the loss poisson, which distnn has not",
    "test_early_stopping_stratified": "wants True in a message for class 1: a form used inside",
}


class AdamForLbfgs:
    """An estimator whose solver lbfgs is adam, with steps large enough for these tests."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """See the estimator's."""
        if self.solver == "lbfgs":
            self.set_params(solver="adam", learning_rate_init=0.02)
        return super().fit(X, y, sample_weight)


class MLPClassifier(AdamForLbfgs, distnn.sklearn.MLPClassifier):
    """See `AdamForLbfgs`."""


class MLPRegressor(AdamForLbfgs, distnn.sklearn.MLPRegressor):
    """See `AdamForLbfgs`."""


with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sklearn.neural_network, "MLPClassifier", MLPClassifier)
    patch.setattr(sklearn.neural_network, "MLPRegressor", MLPRegressor)
    theirs = importlib.import_module("sklearn.neural_network.tests.test_mlp")

assert theirs.MLPClassifier is MLPClassifier
globals().update(
    {name: test for name, test in vars(theirs).items()
     if name.startswith("test_") and name not in LEFT_OUT}
)  # fmt: skip
