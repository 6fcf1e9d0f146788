"""The estimators, measured by scikit-learn: its own checks, its own MLP, its own tools."""

import pickle
from typing import Any

import numpy as np
import pytest

pytest.importorskip(
    "sklearn", reason="scikit-learn is not installed: pip install 'distnn[sklearn]'"
)

from numpy.testing import assert_allclose
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier as Theirs
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from distnn.errors import DivergenceError, InputError
from distnn.sklearn import MLPClassifier, MLPRegressor

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:Can't check dok sparse matrix"),
]

DIGITS, LABELS = load_digits(return_X_y=True)
DIGITS = DIGITS / 16
SMALL: dict[str, Any] = {"hidden_layer_sizes": (16,), "max_iter": 8, "random_state": 0}


def weights(model: Any) -> bytes:
    return b"".join(W.tobytes() for W in (*model.coefs_, *model.intercepts_))


@pytest.mark.parametrize("estimator", [MLPClassifier(), MLPRegressor()], ids=["classes", "numbers"])
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks(estimator: Any) -> None:
    results = check_estimator(estimator, on_skip=None)
    assert {result["status"] for result in results} == {"passed", "skipped"}
    skipped = {result["check_name"] for result in results if result["status"] == "skipped"}
    assert skipped <= {  # neither is about a parameter or a method that is there
        "check_array_api_input",
        "check_classifiers_multilabel_output_format_decision_function",
    }


@pytest.mark.parametrize("alpha", [0.0, 3.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_one_step_is_that_of_scikit_learn(alpha: float, weighted: bool) -> None:
    """From the same weights, with a strong L2 term and weights of rows."""
    draw = np.random.default_rng(0)
    X, y = draw.normal(size=(30, 4)), np.arange(30) % 3
    w = draw.integers(0, 4, 30).astype(float) if weighted else None
    options = {"activation": "tanh", "solver": "sgd", "momentum": 0, "alpha": alpha}
    ours, theirs = (
        kind((5,), **options, learning_rate_init=0.5, random_state=1).partial_fit(
            X, y, w, classes=[0, 1, 2]
        )
        for kind in (MLPClassifier, Theirs)
    )
    for mine, other in zip(
        [*ours.coefs_, *ours.intercepts_], [*theirs.coefs_, *theirs.intercepts_], strict=True
    ):
        other[:] = mine
    ours.partial_fit(X, y, w)
    theirs.partial_fit(X, y, w)
    for l in range(2):
        assert_allclose(ours.coefs_[l], theirs.coefs_[l], rtol=1e-9, atol=1e-12)
        assert_allclose(ours.intercepts_[l], theirs.intercepts_[l], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_without_shuffling_a_training_is_that_of_scikit_learn(activation: str, solver: str) -> None:
    """From the same random state, for 40 steps: the last batch of an epoch is a short one."""
    options = {"activation": activation, "solver": solver, "alpha": 0.0, "shuffle": False}
    ours, theirs = (
        kind((16,), **options, batch_size=64, max_iter=8, random_state=3).fit(
            DIGITS[:300], LABELS[:300]
        )
        for kind in (MLPClassifier, Theirs)
    )
    assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-10)
    assert_allclose(ours.predict_proba(DIGITS), theirs.predict_proba(DIGITS), rtol=1e-8)


def test_digits_are_learned_as_well_as_by_scikit_learn() -> None:
    scores = [
        kind(hidden_layer_sizes=(32,), max_iter=30, batch_size=64, random_state=0)
        .fit(DIGITS[:1300], LABELS[:1300])
        .score(DIGITS[1300:], LABELS[1300:])
        for kind in (MLPClassifier, Theirs)
    ]
    assert scores[0] > scores[1] - 0.02


@pytest.mark.parametrize("solver", ["sgd", "adam", "rmsprop", "adamw"])
@pytest.mark.parametrize("rate", ["constant", "invscaling", "adaptive"])
def test_every_solver_lowers_the_loss(solver: str, rate: str) -> None:
    model = MLPClassifier(**SMALL, solver=solver, learning_rate=rate, learning_rate_init=0.02)
    model.fit(DIGITS[:300], LABELS[:300])
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    assert model.n_iter_ == len(model.loss_curve_) == 8
    assert model.t_ == 8 * 300


def test_invscaling_and_adaptive_rates() -> None:
    model = MLPClassifier(**SMALL, solver="sgd", learning_rate="invscaling", power_t=0.5)
    model.fit(DIGITS[:100], LABELS[:100])
    assert model._rate == pytest.approx(0.001 / (8 * 100 + 1) ** 0.5)
    model = MLPClassifier(
        **SMALL | {"max_iter": 7}, solver="sgd", learning_rate="adaptive", tol=1e9,
        n_iter_no_change=2,
    )  # fmt: skip
    model.fit(DIGITS[:100], LABELS[:100])  # the third, sixth epoch without improvement
    assert model._rate == pytest.approx(0.001 / 25)


def test_training_ends_when_the_loss_does_not_improve() -> None:
    model = MLPClassifier(**SMALL | {"max_iter": 50}, tol=1e9, n_iter_no_change=3)
    model.fit(DIGITS[:100], LABELS[:100])
    assert model.n_iter_ == 5  # the first is better than infinity; then four without improvement
    with pytest.warns(ConvergenceWarning, match="max_iter=8"):
        MLPClassifier(**SMALL).fit(DIGITS[:100], LABELS[:100])


def test_early_stopping_keeps_the_best_weights() -> None:
    model = MLPClassifier(**SMALL | {"max_iter": 40}, early_stopping=True, learning_rate_init=0.03)
    model.fit(DIGITS[:400], LABELS[:400])
    assert model.best_validation_score_ == max(model.validation_scores_)
    assert model.best_loss_ is None
    assert len(model.validation_scores_) == model.n_iter_


def test_partial_fit_goes_on_as_fit_does() -> None:
    whole = MLPClassifier(**SMALL, tol=0.0, n_iter_no_change=100).fit(DIGITS[:300], LABELS[:300])
    parts = MLPClassifier(**SMALL)
    for _ in range(8):
        parts.partial_fit(DIGITS[:300], LABELS[:300], classes=np.arange(10))
    assert weights(whole) == weights(parts)
    assert whole.loss_curve_ == parts.loss_curve_


def test_warm_start_goes_on_from_the_weights() -> None:
    model = MLPClassifier(**SMALL, warm_start=True).fit(DIGITS[:300], LABELS[:300])
    first = model.loss_
    assert model.fit(DIGITS[:300], LABELS[:300]).loss_ < first
    assert len(model.loss_curve_) == 16
    with pytest.raises(ValueError, match="the same classes"):
        model.fit(DIGITS[:4], ["a", "b", "a", "b"])
    with pytest.raises(ValueError, match="not in classes"):
        MLPClassifier().partial_fit([[3, 2], [1, 6]], [1, 0], classes=[2])


def test_sparse_rows_give_the_weights_of_dense_ones() -> None:
    dense = MLPClassifier(**SMALL).fit(DIGITS[:300], LABELS[:300])
    sparse = MLPClassifier(**SMALL).fit(csr_array(DIGITS[:300]), LABELS[:300])
    assert weights(dense) == weights(sparse)
    assert_allclose(dense.predict_proba(DIGITS), sparse.predict_proba(csr_array(DIGITS)))


def test_several_labels_and_several_outputs() -> None:
    X, Y = make_multilabel_classification(200, random_state=0)
    model = MLPClassifier(**SMALL | {"max_iter": 200}, learning_rate_init=0.02).fit(X, Y)
    assert model.predict(X).shape == model.predict_proba(X).shape == Y.shape
    assert np.mean(model.predict(X) == Y) > 0.85
    T = X[:, :3] @ np.array([[1.0, 0], [0, 1], [1, 1]])
    numbers = MLPRegressor(
        hidden_layer_sizes=(32,), max_iter=400, learning_rate_init=0.01, random_state=0
    ).fit(X, T)
    assert numbers.predict(X).shape == T.shape
    assert numbers.score(X, T) > 0.9
    assert numbers.fit(X, T[:, 0]).predict(X).shape == (200,)


def test_rows_in_their_own_order() -> None:
    """Without shuffling, the first of two batches is the first half: one step each."""
    X, y = DIGITS[:64], LABELS[:64] % 2
    model = MLPClassifier(**SMALL | {"max_iter": 1}, solver="sgd", batch_size=32, shuffle=False)
    halves = clone(model).set_params(batch_size=32)
    for part in (slice(32), slice(32, 64)):
        halves.partial_fit(X[part], y[part], classes=[0, 1])
    assert weights(model.fit(X, y)) == weights(halves)


def test_scikit_learns_tools() -> None:
    X, y = DIGITS[:240], LABELS[:240]
    model = make_pipeline(StandardScaler(), MLPClassifier(**SMALL))
    grid = {
        "mlpclassifier__alpha": [1e-4, 1e-2],
        "mlpclassifier__solver": ["adam", "sgd"],
        "mlpclassifier__hidden_layer_sizes": [(8,), (16,)],
    }
    search = GridSearchCV(model, grid, cv=2).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(search.cv_results_["params"]) == 8
    model.set_params(mlpclassifier__learning_rate_init=0.03)
    assert cross_val_score(model, X, y, cv=2).min() > 0.5
    calibrated = CalibratedClassifierCV(MLPClassifier(**SMALL), cv=2).fit(X, y)
    assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1)


def test_a_fitted_estimator_is_kept_and_goes_on() -> None:
    model = MLPClassifier(**SMALL).partial_fit(DIGITS[:200], LABELS[:200], classes=np.arange(10))
    copy = pickle.loads(pickle.dumps(model))
    for one in (model, copy):
        one.partial_fit(DIGITS[:200], LABELS[:200])
    assert weights(model) == weights(copy)


def test_skops_keeps_a_fitted_estimator() -> None:
    io = pytest.importorskip("skops.io", reason="skops is not installed")
    model = MLPClassifier(**SMALL).fit(DIGITS[:200], LABELS[:200])
    data = io.dumps(model)
    trusted = io.get_untrusted_types(data=data)
    assert trusted == ["distnn.sklearn.estimators.MLPClassifier"]
    loaded = io.loads(data, trusted=trusted)
    assert np.array_equal(loaded.predict_proba(DIGITS), model.predict_proba(DIGITS))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"solver": "lbfgs"}, "adam or sgd"),
        ({"activation": "relo"}, "did you mean relu"),
        ({"hidden_layer_sizes": (0,)}, "at least 1"),
        ({"hidden_layer_sizes": "many"}, "hidden_layer_sizes"),
        ({"alpha": -1}, "alpha"),
        ({"batch_size": 0}, "batch_size"),
        ({"tol": "small"}, "tol"),
        ({"shuffle": 1}, "True or False"),
        ({"n_iter_no_change": 0}, "n_iter_no_change"),
        ({"early_stopping": True, "validation_fraction": 1.0}, "validation_fraction"),
    ],
    ids=str,
)
def test_what_cannot_be_used(given: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        MLPClassifier(**given).fit(DIGITS[:300], LABELS[:300])
    assert isinstance(caught.value, InputError)


def test_a_training_that_diverges_is_an_error() -> None:
    model = MLPRegressor(**SMALL, solver="sgd", learning_rate_init=1e200)
    with pytest.raises(DivergenceError):
        model.fit(DIGITS[:100], LABELS[:100])
