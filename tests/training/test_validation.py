"""Validation, early stopping, weights and metrics of a trainer: the same on any number of ranks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distnn import SGD, Network, Trainer
from distnn.data.scaling import Scaling, Units
from distnn.data.split import held_out
from distnn.errors import InputError
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.parallel.comm.shared_memory import SharedMemory
from distnn.run import checkpoint
from distnn.training.arrays import from_arrays
from distnn.training.evaluation import Evaluation
from distnn.training.scores import deviation
from tests.small import bits, classes, network, rows

WORLD = Communicator()
ALL = [WORLD, Communicator(MPI.COMM_SELF), Communicator(shared=False)]
N = 90
X, Y = rows(N), classes(N)
W = np.random.default_rng(4).choice([0.0, 0.5, 1.0, 2.5], N)


def trainer(comm: Any = None, net: Network | None = None, **options: Any) -> Trainer:
    settings = {"batch_size": 16, "slices": 5, "seed": 3} | options
    return Trainer(network() if net is None else net, SGD(0.5), comm=comm, **settings)


def own_part(comm: Communicator) -> slice:
    return slice(comm.rank * N // comm.size, (comm.rank + 1) * N // comm.size)


@pytest.mark.mpi
def test_a_share_is_the_same_rows_on_any_ranks_and_in_any_parts() -> None:
    mask = held_out(N, 0.2, 3, Y)
    results = []
    for comm in ALL:
        one = trainer(comm)
        results.append((one.fit(X, Y, 2, validation=0.2, sample_weight=W), bits(one.network)))
    parts, mine = trainer(WORLD), own_part(WORLD)
    part = X[mine], Y[mine]
    history = parts.fit(*part, 2, validation=0.2, sample_weight=W[mine], partitioned=True)
    results.append((history, bits(parts.network)))
    pair = trainer(WORLD)
    held = X[mask], Y[mask], W[mask]
    history = pair.fit(X[~mask], Y[~mask], 2, validation=held, sample_weight=W[~mask])
    results.append((history, bits(pair.network)))
    assert results[1:] == results[:1] * (len(results) - 1)


@pytest.mark.mpi
def test_rows_on_rank_0_alone_are_all_rows() -> None:
    some = slice(0, N if WORLD.is_first else 0)
    alone, whole = trainer(WORLD), trainer(WORLD)
    given = {"sample_weight": W[some], "partitioned": True}
    history = alone.fit(X[some], Y[some], 2, validation=0.2, **given)
    assert history == whole.fit(X, Y, 2, validation=0.2, sample_weight=W)
    assert bits(alone.network) == bits(whole.network)
    assert alone.report == whole.report


@pytest.mark.mpi
def test_patience_ends_the_training_and_the_best_weights_are_measured() -> None:
    test = rows(40), classes(40)
    one = trainer(patience=2, metric="f1")
    history = one.fit(X, Y, 50, validation=0.3, test=test)
    values = [record["validation_f1"] for record in history]
    best = int(np.argmax(values))
    assert len(history) == best + 3 < 50
    assert all("test_loss" not in record for record in history)
    assert (one.report["best_epoch"], one.report["stopped_early"]) == (best + 1, True)
    assert one.report["validation_f1"] == values[best]
    assert one.fit(X, Y, 50, validation=0.3, test=test) == []
    one.load_best()
    assert checkpoint.weights_sha256(one.network.weights) == one.report["best_weights_sha256"]
    loss, _ = one.network.loss_and_gradients(*test)
    assert one.report["test_loss"] == pytest.approx(loss, rel=1e-12)
    shorter = trainer(metric="f1")
    shorter.fit(X, Y, best + 1, validation=0.3)
    assert bits(shorter.network) == bits(one.network)


@pytest.mark.mpi
@pytest.mark.parametrize("stop", [4])
def test_a_resumed_run_stops_at_the_same_epoch(tmp_path: Path, stop: int) -> None:
    folder = Path(WORLD.broadcast(str(tmp_path)))
    options = {"patience": 3, "metric": "accuracy", "checkpoint_every": "2"}
    results = []
    for name, lengths in (("straight", [60]), ("resumed", [stop, 60])):
        for epochs in lengths:
            one = trainer(run_dir=str(folder / name), resume=True, **options)
            one.fit(X, Y, epochs, validation=0.3, test=(rows(30), classes(30)))
        summary = json.loads((folder / name / "summary.json").read_text())
        timing = ("seconds", "samples_per_second", "fingerprints")
        results.append({key: value for key, value in summary.items() if key not in timing})
        lines = (folder / name / "metrics.jsonl").read_text().splitlines()
        assert len(lines) == summary["epochs"] == summary["best_epoch"] + 3
        best = checkpoint.read(folder / name / "checkpoints" / "best.safetensors")
        assert best.meta["position"]["epoch"] == summary["best_epoch"]
    assert results[0] == results[1]
    again = trainer(run_dir=str(folder / "resumed"), resume=True, **options)
    assert again.fit(X, Y, 60, validation=0.3, test=(rows(30), classes(30))) == []


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("output", "loss"),
    [("softmax", "cross-entropy"), ("softmax", "squared-error"), ("sigmoid", "huber"),
     ("sigmoid", "binary-cross-entropy"), ("tanh", "mean-absolute-error")],
)  # fmt: skip
def test_whole_weights_are_repetition(output: str, loss: str) -> None:
    w = np.random.default_rng(0).integers(0, 4, N)
    nets = [network(output=output, loss=loss) for _ in range(2)]
    again = np.repeat(np.arange(N), w)
    histories = [
        trainer(net=nets[0], batch_size=N).fit(X, Y, 1, sample_weight=w, test=(X, Y, w)),
        trainer(net=nets[1], batch_size=len(again)).fit(
            X[again], Y[again], 1, test=(X[again], Y[again])
        ),
    ]
    for name, value in histories[0][0].items():
        assert value == pytest.approx(histories[1][0][name], rel=1e-10)
    np.testing.assert_allclose(nets[0].vector, nets[1].vector, rtol=1e-9, atol=1e-12)


@pytest.mark.mpi
def test_equal_weights_change_nothing_to_speak_of_and_zeros_leave_the_weights() -> None:
    plain, equal, nothing = network(), network(), network()
    trainer(net=plain).fit(X, Y, 2)
    trainer(net=equal).fit(X, Y, 2, sample_weight=np.full(N, 7.0))
    np.testing.assert_allclose(plain.vector, equal.vector, rtol=1e-9, atol=1e-12)
    one_row = np.zeros(N)
    one_row[5] = 1
    start = nothing.vector.copy()
    trainer(net=nothing, batch_size=1).fit(X, Y, 1, sample_weight=one_row)
    alone = network()
    trainer(net=alone, batch_size=1).fit(X[5:6], Y[5:6], 1)
    assert not np.array_equal(start, nothing.vector)
    np.testing.assert_allclose(nothing.vector, alone.vector, rtol=1e-12)


@pytest.mark.mpi
def test_balanced_classes_are_rows_of_those_weights() -> None:
    y = np.minimum(np.arange(N) % 10, 2)  # 9, 9 and 72 rows
    w = N / (3 * np.bincount(y))[y]
    balanced, weighted = network(), network()
    trainer(net=balanced, class_weight="balanced").fit(X, y, 2)
    trainer(net=weighted).fit(X, y, 2, sample_weight=w)
    assert bits(balanced) == bits(weighted)


@pytest.mark.mpi
def test_smoothed_labels_are_soft_labels() -> None:
    smoothed, soft = network(), network()
    trainer(net=smoothed, label_smoothing=0.3).fit(X, Y, 2)
    trainer(net=soft).fit(X, 0.7 * np.eye(3)[Y] + 0.1, 2)
    np.testing.assert_allclose(smoothed.vector, soft.vector, rtol=1e-10)


@pytest.mark.mpi
@pytest.mark.parametrize("n", [3, 700])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_report_of_real_targets_is_in_their_own_unit(n: int, weighted: bool) -> None:
    net = Network([4, 5, 2], "tanh", "identity", "squared-error", dtype="float64", seed=1)
    inputs = rows(n)
    T = np.stack([inputs[:, 0], inputs[:, 1] * inputs[:, 2]], axis=1)
    w = np.random.default_rng(1).uniform(0.1, 3, n) if weighted else None
    units = Units(Scaling(np.array([2.0, -1.0]), np.array([0.5, 4.0])), "log")
    reports = []
    for comm in ALL:
        memory = SharedMemory(comm)
        dataset = from_arrays(comm, memory, net, inputs, T, weights=w)
        reports.append(Evaluation(comm, net, dataset, "", False, units=units).report())
        memory.close()
    assert reports[1:] == reports[:1] * (len(ALL) - 1)
    own_T, own_A = (np.exp(Y / [0.5, 4.0] + [2.0, -1.0]) for Y in (T, net.forward(inputs)))
    mse = np.average((own_T - own_A) ** 2, axis=0, weights=w)
    mae = np.average(np.abs(own_T - own_A), axis=0, weights=w)
    r2 = 1 - mse * (n if w is None else w.sum()) / deviation(own_T, w)
    for k, one in enumerate(reports[0]["targets"]):
        expected = {"rmse": np.sqrt(mse[k]), "mae": mae[k], "r2": r2[k]}
        assert one == pytest.approx(expected, rel=1e-11)
    assert reports[0]["rmse"] == pytest.approx(np.sqrt(mse).mean(), rel=1e-12)


@pytest.mark.mpi
@pytest.mark.parametrize("n", [3, 700])
def test_the_report_of_classes_is_scikit_learns(n: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    net, inputs = network(), rows(n)
    y, w = np.arange(n) % 3, np.random.default_rng(1).uniform(0.1, 3, n)
    P, decided = net.forward(inputs), net.predict(inputs)
    reports = []
    for comm in ALL:
        memory = SharedMemory(comm)
        dataset = from_arrays(comm, memory, net, inputs, y, weights=w)
        reports.append(Evaluation(comm, net, dataset, "").report())
        memory.close()
    assert reports[1:] == reports[:1] * (len(ALL) - 1)
    expected = {
        "loss": metrics.log_loss(y, P, sample_weight=w),
        "log_loss": metrics.log_loss(y, P, sample_weight=w),
        "accuracy": metrics.accuracy_score(y, decided, sample_weight=w),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, decided, sample_weight=w),
        "f1": metrics.f1_score(y, decided, average="macro", sample_weight=w),
        "auc": metrics.roc_auc_score(y, P, multi_class="ovr", sample_weight=w),
    }
    for name, value in expected.items():
        assert reports[0][name] == pytest.approx(value, rel=1e-12), name
    matrix = metrics.confusion_matrix(y, decided, sample_weight=w)
    np.testing.assert_allclose(reports[0]["confusion"], matrix, rtol=1e-12)


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({"patience": 3}, {"test": (X, Y)}, "patience: there is no validation set"),
        ({"metric": "accuracy"}, {}, "metric: there is no validation set"),
        ({"metric": "rmse"}, {"validation": 0.2}, "metric: rmse is not one of classification"),
        ({}, {"validation": 1.0}, "validation: 1.0 must be below 1"),
        ({}, {"validation": 3}, "validation: 3 is not a pair"),
        ({}, {"sample_weight": W[:-1]}, "sample_weight: is not one number for each row"),
        ({}, {"sample_weight": -W}, "sample_weight: the weight -.* of row .* cannot be used"),
        ({}, {"sample_weight": 0 * W}, "sample_weight: every weight is 0"),
        ({"class_weight": "even"}, {}, "class_weight: there is no 'even'"),
        ({"label_smoothing": 1}, {}, "label_smoothing: 1 must be below 1"),
    ],
)
def test_what_cannot_be_used(
    options: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        trainer(**options).fit(X, Y, 1, **arguments)


@pytest.mark.mpi
def test_weights_are_given_on_every_rank_or_on_none() -> None:
    mine = own_part(WORLD)
    given = W[mine] if WORLD.is_first else None
    if WORLD.size > 1:
        with pytest.raises(InputError, match="sample_weight of rank 1: is missing here"):
            trainer().fit(X[mine], Y[mine], 1, partitioned=True, sample_weight=given)
