"""A trainer of any gradient: the results of a network through it, any ranks, errors, a stop."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
from numpy.testing import assert_allclose

from distnn import (
    SGD,
    Adam,
    DivergenceError,
    GradientTrainer,
    InputError,
    Momentum,
    RankFailed,
    StopRequested,
    Trainer,
)
from distnn.parallel.comm.mpi import MPI

WORLD = MPI.COMM_WORLD
N = 47
A = np.random.default_rng(0).normal(size=(N, 5))
B = A @ np.arange(5.0) + 1
OPTIONS: dict[str, Any] = {"batch_size": 12, "slices": 8}


def least_squares(theta: np.ndarray, rows: np.ndarray) -> tuple[float, np.ndarray]:
    """Half the squared error of A theta = B, summed over some rows."""
    residual = A[rows] @ theta - B[rows]
    return 0.5 * float(residual @ residual), A[rows].T @ residual


def fitted(comm: Any = None, **options: Any) -> GradientTrainer:
    trainer = GradientTrainer(
        np.zeros(5), least_squares, N, Adam(0.1), comm=comm, **OPTIONS | options
    )
    trainer.fit(3)
    return trainer


def test_a_network_through_it_is_trained_as_by_the_trainer() -> None:
    X, T = small.rows(N), small.classes(N)
    net, own = small.network(), small.network()

    def gradient(theta: np.ndarray, rows: np.ndarray) -> tuple[float, np.ndarray]:
        own.load(theta)
        if not len(rows):
            return 0.0, np.zeros(own.size)
        loss, gradients = own.loss_and_gradients(X[rows], T[rows])
        sums = np.concatenate([g.reshape(-1) for g in gradients]) * len(rows)
        return loss * len(rows), sums

    theta = own.vector.copy()
    records = Trainer(net, Momentum(0.1), **OPTIONS, seed=3).fit(X, T, 4)
    trainer = GradientTrainer(theta, gradient, N, Momentum(0.1), **OPTIONS, seed=3)
    ours = trainer.fit(4)
    assert_allclose(trainer.theta, net.vector, rtol=1e-10, atol=1e-13)
    losses = [[record["train_loss"] for record in one] for one in (records, ours)]
    assert_allclose(*losses, rtol=1e-12)


def test_one_step_is_the_mean_gradient_of_all_rows() -> None:
    trainer = GradientTrainer(np.ones(5), least_squares, N, SGD(0.5), batch_size=N)
    records = trainer.fit(1)
    loss, gradient = least_squares(np.ones(5), np.arange(N))
    assert_allclose(trainer.theta, 1 - 0.5 * gradient / N, rtol=1e-13)
    assert records[0]["train_loss"] == pytest.approx(loss / N, rel=1e-13)


def test_theta_is_read_only_and_the_callers_own_is_left_alone() -> None:
    start = np.zeros(5)

    def writes(theta: np.ndarray, rows: np.ndarray) -> Any:
        theta[0] = 1
        return least_squares(theta, rows)

    with pytest.raises(ValueError, match="read-only"):
        GradientTrainer(start, writes, N, **OPTIONS).fit(1)
    GradientTrainer(start, least_squares, N, **OPTIONS).fit(1)
    assert not start.any()


def test_a_second_fit_goes_on() -> None:
    twice = fitted()
    twice.fit(2)
    once = GradientTrainer(np.zeros(5), least_squares, N, Adam(0.1), **OPTIONS)
    once.fit(5)
    assert twice.theta.tobytes() == once.theta.tobytes()


@pytest.mark.parametrize("stop_at", [1, 3, 5, 10])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path, stop_at: int) -> None:
    calls = 0

    def stops(theta: np.ndarray, rows: np.ndarray) -> Any:
        nonlocal calls
        calls += 1
        if calls == 8 * stop_at:
            stopped.request_stop()
        return least_squares(theta, rows)

    files = {"run_dir": str(tmp_path / "run"), "resume": True, "checkpoint_every": "2s"}
    start = np.zeros(5)
    stopped = GradientTrainer(start, stops, N, Adam(0.1), **OPTIONS, **files)
    with pytest.raises(StopRequested, match="step"):
        stopped.fit(3)
    again = GradientTrainer(start, least_squares, N, Adam(0.1), **OPTIONS, **files)
    again.fit(3)
    assert again.theta.tobytes() == fitted().theta.tobytes()
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3
    finished = GradientTrainer(start, least_squares, N, Adam(0.1), **OPTIONS, **files)
    assert finished.fit(3) == []
    assert finished.theta.tobytes() == again.theta.tobytes()


def test_a_run_is_not_continued_with_something_else(tmp_path: Path) -> None:
    files = {"run_dir": str(tmp_path), "resume": True}
    fitted(**files)
    with pytest.raises(InputError, match="size"):
        GradientTrainer(np.zeros(6), least_squares, N, Adam(0.1), **OPTIONS, **files).fit(3)
    with pytest.raises(InputError, match="optimizer"):
        GradientTrainer(np.zeros(5), least_squares, N, SGD(0.1), **OPTIONS, **files).fit(3)
    with pytest.raises(InputError, match="seed"):
        fitted(seed=1, **files)
    with pytest.raises(InputError, match="slices: 4 was given"):
        fitted(slices=4, **files)
    other = GradientTrainer(np.zeros(5), least_squares, N, Adam(0.1), **files)
    with pytest.raises(InputError, match="batch_size: 64 was given"):  # the default
        other.fit(4)
    with pytest.raises(InputError, match="run"):
        fitted(run_dir=str(tmp_path))


def test_lost_lines_of_the_metrics_are_written_again(tmp_path: Path) -> None:
    files = {"run_dir": str(tmp_path), "resume": True}
    fitted(**files)
    path = tmp_path / "metrics.jsonl"
    before = path.read_text()
    path.unlink()
    GradientTrainer(np.zeros(5), least_squares, N, Adam(0.1), **OPTIONS, **files).fit(4)
    assert path.read_text().startswith(before)
    assert len(path.read_text().splitlines()) == 4


def test_a_tracker_sees_the_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_tracker.py").write_text(
        "class Lines:\n"
        "    def start(self, run): self.file, self.seen = run.directory / 'seen', []\n"
        "    def log(self, epoch, measures): self.seen.append(epoch)\n"
        "    def finish(self, outcome, summary): self.file.write_text(f'{self.seen} {outcome}')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    fitted(run_dir=str(tmp_path / "run"), tracker="my_tracker:Lines")
    assert (tmp_path / "run" / "seen").read_text() == "[1, 2, 3] finished"
    with pytest.raises(InputError, match="there is no run to track"):
        fitted(tracker="my_tracker:Lines")


@pytest.mark.parametrize(
    ("theta", "given", "text"),
    [
        (np.zeros((2, 2)), {}, "theta"), (np.zeros(2, int), {}, "theta"),
        ([np.nan], {}, "theta"), (np.zeros(0), {}, "theta"),
        (np.zeros(5), {"n": 0}, "n"), (np.zeros(5), {"gradient": 3}, "gradient"),
        (np.zeros(5), {"optimizer": "adam"}, "optimizer"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_used(theta: Any, given: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        GradientTrainer(theta, **{"gradient": least_squares, "n": N} | given)


def test_a_gradient_of_another_shape_and_one_that_diverges() -> None:
    with pytest.raises(ValueError, match=r"has shape \(4,\), theta \(5,\)"):
        GradientTrainer(np.zeros(5), lambda theta, rows: (0.0, theta[:4]), N, **OPTIONS).fit(1)
    trainer = GradientTrainer(np.zeros(5), lambda theta, rows: (np.nan, theta), N, **OPTIONS)
    with pytest.raises(DivergenceError):
        trainer.fit(1)


# --- under mpirun ---------------------------------------------------------------------------------


@pytest.mark.mpi
@pytest.mark.parametrize("update", ["rank0", "sharded"])
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_all_ranks_reach_what_one_does(update: str, clip_norm: float | None) -> None:
    options = {"update": update, "clip_norm": clip_norm}
    together, alone = fitted(**options), fitted(MPI.COMM_SELF, **options)
    assert together.theta.tobytes() == alone.theta.tobytes()
    assert WORLD.allgather(together.theta.tobytes()) == [alone.theta.tobytes()] * WORLD.size


@pytest.mark.mpi
def test_an_error_of_the_function_on_one_rank_reaches_all() -> None:
    def fails(theta: np.ndarray, rows: np.ndarray) -> Any:
        if WORLD.rank == WORLD.size - 1:
            raise ZeroDivisionError("in the caller's code")
        return least_squares(theta, rows)

    with pytest.raises(ZeroDivisionError if WORLD.rank == WORLD.size - 1 else RankFailed):
        GradientTrainer(np.zeros(5), fails, N, **OPTIONS).fit(2)


@pytest.mark.mpi
def test_what_one_rank_gives_is_an_error_on_all() -> None:
    is_last = WORLD.rank == WORLD.size - 1
    with pytest.raises(InputError, match="theta"):
        GradientTrainer(np.zeros(5 + WORLD.rank), least_squares, N, **OPTIONS)
    with pytest.raises(InputError, match=f"n: 0 must be at least 1 .on rank {WORLD.size - 1}"):
        GradientTrainer(np.zeros(5), least_squares, 0 if is_last else N, **OPTIONS)
    trainer = GradientTrainer(np.zeros(5), least_squares, N, **OPTIONS)
    with pytest.raises(InputError, match="epochs: 0 must be at least 1"):
        trainer.fit(0 if is_last else 1)
