"""The task that is deduced from targets, output and loss, and targets that are refused."""

import numpy as np
import pytest

from distnn.data.targets import Targets, check_like
from distnn.errors import InputError

INTEGERS = np.array([0, 2, 1, 2], "u1")
ONE_HOT = np.eye(3, dtype=int)[[0, 2, 1, 2]]
SOFT = np.array([[0.2, 0.8], [1, 0]])


@pytest.mark.parametrize(
    ("y", "output", "loss", "task", "n_out"),
    [
        (INTEGERS, None, None, "classification", 3),
        (INTEGERS[:, None], None, None, "classification", 3),
        (INTEGERS, "softmax", "half-squared-error", "classification", 3),
        (INTEGERS, "identity", None, "regression", 1),
        (INTEGERS, None, "mean-absolute-error", "regression", 1),
        (INTEGERS, None, "huber", "regression", 1),
        (INTEGERS, "softmax", "huber", "classification", 3),
        (ONE_HOT, "softmax", "mean-absolute-error", "classification", 3),
        (INTEGERS % 2, None, None, "classification", 2),
        (INTEGERS % 2, "sigmoid", None, "classification", 1),
        (INTEGERS % 2, None, "binary-cross-entropy", "classification", 1),
        (INTEGERS, "sigmoid", None, "classification", 3),
        (INTEGERS > 0, None, None, "classification", 2),
        (INTEGERS * 1.0, None, None, "regression", 1),
        (INTEGERS * 1.0, None, "cross-entropy", "classification", 3),
        (INTEGERS * 1.0, "softmax", None, "classification", 3),
        (SOFT, None, None, "regression", 2),
        (SOFT, None, "cross-entropy", "classification", 2),
        (ONE_HOT, None, None, "classification", 3),
        (ONE_HOT * 2, None, None, "regression", 3),
        (np.zeros((4, 2, 3)), None, None, "regression", 6),
    ],
)
def test_the_task(y, output, loss, task, n_out):
    targets = Targets.deduce(y, output, loss)
    assert (targets.task, targets.n_out) == (task, n_out)
    if task == "regression":
        assert (targets.values == y.reshape(len(y), -1)).all()
        assert targets.values.dtype == np.float64
        assert targets.classes == 0
    elif y is SOFT:
        assert (targets.values == SOFT).all()
    else:
        numbers = y.argmax(axis=1) if y is ONE_HOT else y.reshape(-1)
        assert (targets.values == numbers).all()
        assert targets.values.dtype == np.int64


@pytest.mark.parametrize(
    ("y", "loss", "match"),
    [
        ([0, 1, -1], None, "y, row 2 .*: label -1 is negative"),
        (
            [0, 1.5],
            "cross-entropy",
            "y, row 1 .*: label 1.5 is no class number: .*integers; .*regression",
        ),
        ([0, 10**6], None, "largest label 1000000 means 1000001 classes for 2 rows; .*regression"),
        (np.array([0, 2**63], "u8"), None, "too large"),
        ([0, 0], None, "only one class"),
        ([], None, "y: empty: no rows"),
        ([0.5, np.nan], None, "y, row 1, column 0 .*: the value is NaN"),
        ([0.5, np.inf], "cross-entropy", "the value is infinity"),
        ([[0.5, -0.5]], "cross-entropy", "row 0, column 1 .*: soft label -0.5"),
        ([[0.5, 1.5]], "binary-cross-entropy", "soft label 1.5"),
        (["a", "b"], "huber", "y: text, as 'a', where numbers are expected"),
        (["a", "a"], None, "y: every label is a: there is only one class"),
        (["a", "b", "c"], None, "y: 3 different texts in 3 rows are no classes; choose"),
        (np.arange(200), None, "y: 200 different whole numbers in 200 rows; say --task class.*reg"),
        ([[0, 1], [2]], None, "y: not an array"),
        (np.array([1, None]), None, "pickled arrays are refused"),
        (3, None, "a single value"),
    ],
)
def test_targets_that_are_refused(y, loss, match):
    with pytest.raises(InputError, match=match):
        Targets.deduce(y, loss=loss, where="y")


def test_many_classes_are_fine_with_many_rows():
    assert Targets.deduce(np.arange(5000), task="classification").n_out == 5000
    assert Targets.deduce([0, 999]).n_out == 1000


def test_other_sets_are_checked_against_the_training_set():
    targets = Targets.deduce(INTEGERS)
    assert targets.check([2, 2, 2]).tolist() == [2, 2, 2]
    assert targets.check(ONE_HOT).tolist() == [0, 2, 1, 2]
    with pytest.raises(InputError, match=r"test, row 1 .*: label 3 is beyond the 3 classes"):
        targets.check([0, 3], "test")
    with pytest.raises(InputError, match="labels must be integers"):
        targets.check([0, 0.5])
    with pytest.raises(InputError, match="2 targets per row, the training set has 3"):
        targets.check(SOFT)
    binary = Targets.deduce([0, 1], output="sigmoid")
    assert binary.check([0, 0]).tolist() == [0, 0]
    with pytest.raises(InputError, match="beyond the 2 classes"):
        binary.check([2])
    real = Targets.deduce([0.5, 1])
    assert real.check([3, 4]).tolist() == [[3], [4]]
    assert check_like([3], "regression", 1, 0, "y").dtype == np.float64


@pytest.mark.parametrize(
    ("y", "names", "numbers"),
    [
        (["no", "yes", "no", "yes"], ("no", "yes"), [0, 1, 0, 1]),
        ([3, 1, 3, 1], ("1", "3"), [1, 0, 1, 0]),
        ([-1, 1, 1, -1], ("-1", "1"), [0, 1, 1, 0]),
        ([10, 9, 10, 9], ("9", "10"), [1, 0, 1, 0]),
        ([0.0, 1.0, 1.0, 0.0], ("0", "1"), [0, 1, 1, 0]),
        ([True, False, True, False], ("False", "True"), [1, 0, 1, 0]),
        (["2", "10", "x", "x", "2", "10"], ("10", "2", "x"), [1, 0, 2, 2, 1, 0]),
    ],
)
def test_classes_are_the_different_values_of_a_table(y, names, numbers):
    targets = Targets.deduce(np.array(y, object if isinstance(y[0], str) else None), by_value=True)
    assert targets.names == names
    assert targets.values.tolist() == numbers
    assert targets.values.dtype == np.int64
    assert targets.check(np.array(y)).tolist() == numbers
    with pytest.raises(InputError, match=r"row 1 .*: class 'other' is none of the training set's"):
        targets.check(np.array([names[0], "other"], object))


@pytest.mark.parametrize(
    ("y", "task"),
    [
        (np.arange(40) % 2 * 1.0, "classification"),
        (np.arange(40) % 3 * 1.0, None),
        (np.arange(40) * 1.0, "regression"),
        (np.arange(40) % 3 + 0.5, "regression"),
        (np.arange(40) % 20, "classification"),
        (np.arange(40) % 21, None),
        (np.arange(400) % 101, None),
        (np.arange(400) % 100, "classification"),
    ],
)
def test_whole_numbers_of_a_table_are_asked_about(y, task):
    for given in ("classification", "regression"):
        assert Targets.deduce(y, by_value=True, task=given).task == given
    if task is not None:
        assert Targets.deduce(y, by_value=True).task == task
        return
    with pytest.raises(InputError, match=r"--task classification if .* or --task regression if"):
        Targets.deduce(y, by_value=True)


def test_the_description():
    labels = np.array(["setosa", "virginica", "versicolor"] * 9, object)
    expected = "classification, 3 classes (setosa, versicolor, virginica)"
    assert Targets.deduce(labels).description() == expected
    many = Targets.deduce(np.arange(40) % 20).description()
    assert many == "classification, 20 classes (0, 1, 2, ..., 19)"
    assert Targets.deduce(np.eye(2) + 0.5).description() == "regression, 2 targets"
