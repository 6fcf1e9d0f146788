"""Metrics against their definitions written out row by row, and against scikit-learn's."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn.training.scores import ClassCounts, confusion, deviation, log_losses, r2, roc_auc

N, CLASSES = 60, 4


def data(seed: int, weighted: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    rng = np.random.default_rng(seed)
    truth, decided = rng.integers(0, CLASSES, N), rng.integers(0, CLASSES, N)
    w = rng.choice([0, 0.5, 1, 3], N) if weighted else None
    return truth, decided, w


@given(seed=st.integers(0, 999), weighted=st.booleans())
def test_counts_are_those_of_a_loop(seed: int, weighted: bool) -> None:
    truth, decided, w = data(seed, weighted)
    matrix = np.zeros((CLASSES, CLASSES))
    for i in range(N):
        matrix[truth[i], decided[i]] += 1 if w is None else w[i]
    counts = ClassCounts.of(truth, decided, CLASSES, w)
    np.testing.assert_allclose(confusion(truth, decided, CLASSES, w), matrix, rtol=1e-12)
    recall, precision = (np.diag(matrix) / matrix.sum(axis=axis) for axis in (1, 0))
    np.testing.assert_allclose(counts.recall, recall, rtol=1e-12)
    np.testing.assert_allclose(counts.precision, precision, rtol=1e-12)
    np.testing.assert_allclose(
        counts.macro_f1,
        np.mean([2 * p * r / (p + r) if p + r else 0 for p, r in zip(precision, recall)]),  # noqa: B905
        rtol=1e-12,
    )
    assert counts.balanced_accuracy == pytest.approx(recall.mean(), rel=1e-12)


@given(seed=st.integers(0, 999), weighted=st.booleans(), values=st.integers(2, 40))
def test_auc_is_the_share_of_pairs_in_order(seed: int, weighted: bool, values: int) -> None:
    rng = np.random.default_rng(seed)
    positive, scores = np.arange(30) % 3 == 0, rng.integers(0, values, 30) / values  # with ties
    w = rng.integers(1, 5, 30).astype(float) if weighted else None
    ordered = total = 0.0
    for i, j in itertools.product(np.flatnonzero(positive), np.flatnonzero(~positive)):
        pair = 1 if w is None else w[i] * w[j]
        total += pair
        ordered += pair * (1 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0)
    assert roc_auc(positive, scores, w) == pytest.approx(ordered / total, rel=1e-13)


def test_auc_without_both_kinds_of_rows_is_no_number() -> None:
    assert np.isnan(roc_auc(np.ones(3, bool), np.arange(3.0), None))
    assert np.isnan(roc_auc(np.array([True, False]), np.array([np.nan, 1]), None))


def test_absent_classes_count_nowhere() -> None:
    counts = ClassCounts.of(np.array([0, 0, 2]), np.array([0, 2, 2]), 5, None)
    assert counts.balanced_accuracy == pytest.approx((1 / 2 + 1) / 2)
    assert counts.macro_f1 == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_log_loss_of_certain_and_wrong_outputs_is_finite() -> None:
    wrong = log_losses(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
    assert wrong == pytest.approx(-np.log(np.finfo(float).eps))


@pytest.mark.parametrize("weighted", [False, True])
def test_as_scikit_learn(weighted: bool) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    truth, decided, w = data(5, weighted)
    P = np.random.default_rng(6).dirichlet(np.ones(CLASSES), N).round(2) + 1e-3
    P /= P.sum(axis=1, keepdims=True)
    counts = ClassCounts.of(truth, decided, CLASSES, w)
    keywords = {"sample_weight": w}
    each = metrics.precision_recall_fscore_support(truth, decided, **keywords)
    areas = [roc_auc(truth == c, P[:, c], w) for c in range(CLASSES)]
    losses = log_losses(P, np.eye(CLASSES)[truth])
    T, A = P[:, :2], P[:, 2:]
    column = np.ones((N, 1)) if w is None else w[:, None]
    for own, theirs in [
        (counts.balanced_accuracy, metrics.balanced_accuracy_score(truth, decided, **keywords)),
        (counts.macro_f1, metrics.f1_score(truth, decided, average="macro", **keywords)),
        (counts.precision, each[0]),
        (counts.recall, each[1]),
        (counts.f1, each[2]),
        (
            confusion(truth, decided, CLASSES, w),
            metrics.confusion_matrix(truth, decided, **keywords),
        ),
        (roc_auc(truth == 1, P[:, 1], w), metrics.roc_auc_score(truth == 1, P[:, 1], **keywords)),
        (np.mean(areas), metrics.roc_auc_score(truth, P, multi_class="ovr", **keywords)),
        (np.average(losses, weights=w), metrics.log_loss(truth, P, **keywords)),
        (
            r2((column * (T - A) ** 2).sum(axis=0), deviation(T, w)),
            metrics.r2_score(T, A, multioutput="raw_values", **keywords),
        ),
    ]:
        np.testing.assert_allclose(own, theirs, rtol=1e-12, atol=1e-14)
