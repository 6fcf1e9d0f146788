"""Trainer with a run directory: the files of a run, from arrays in memory."""

import contextlib
import json
import time

import numpy as np
import pytest

from distnn import Adam, DivergenceError, InputError, Network, StopRequested, Trainer
from distnn.evaluate import evaluate
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.run import checkpoint
from distnn.train import train
from distnn.training.session import Session


def problem():
    draw = np.random.default_rng(0)
    X = draw.standard_normal((150, 5))
    return X, (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


def trainer(run_dir=None, **arguments):
    network = Network([5, 8, 3], activation="tanh", seed=1)
    return Trainer(
        network, Adam(0.01), batch_size=16, slices=4, seed=2, run_dir=run_dir, **arguments
    )


def summary(path):
    return json.loads((path / "summary.json").read_text())


def test_without_a_run_dir_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer().fit(*problem(), epochs=1)
    assert list(tmp_path.iterdir()) == []


def test_the_files_tell_what_the_network_became(tmp_path):
    X, T = problem()
    one = trainer(str(tmp_path / "r"))
    history = one.fit(X, T, epochs=3, test=(X[:20], T[:20]))
    lines = (tmp_path / "r/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == history
    told = summary(tmp_path / "r")
    assert told["epochs"] == 3
    assert told["steps"] == 3 * 10
    assert told["weights_sha256"] == checkpoint.weights_sha256(one.network.weights)
    assert told["test_accuracy"] == history[-1]["test_accuracy"]
    saved = checkpoint.newest(tmp_path / "r/checkpoints", pytest.fail)
    np.testing.assert_array_equal(saved.weights(), one.network.vector)


def test_a_run_goes_on_to_the_hash_of_one_that_was_not_stopped(tmp_path):
    X, T = problem()
    trainer(str(tmp_path / "straight")).fit(X, T, epochs=5)
    trainer(str(tmp_path / "stopped"), checkpoint_every="7s").fit(X, T, epochs=2)
    on = trainer(str(tmp_path / "stopped"), resume=True)
    assert [record["epoch"] for record in on.fit(X, T, epochs=5)] == [3, 4, 5]
    straight, stopped = summary(tmp_path / "straight"), summary(tmp_path / "stopped")
    for name in ("weights_sha256", "optimizer_sha256", "train_loss"):
        assert straight[name] == stopped[name]
    lines = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("straight", "stopped")]
    assert lines[0] == lines[1]


def test_views_of_the_weights_show_those_of_the_run_that_goes_on(tmp_path):
    X, T = problem()
    first = trainer(str(tmp_path))
    first.fit(X, T, epochs=2)
    on = trainer(str(tmp_path), resume=True)
    views = on.network.weights
    on.fit(X, T, epochs=2)
    np.testing.assert_array_equal(
        np.concatenate([W.reshape(-1) for W in views]), first.network.vector
    )


def test_a_second_fit_goes_on_in_the_same_directory(tmp_path):
    X, T = problem()
    twice = trainer(str(tmp_path / "twice"))
    twice.fit(X, T, epochs=2)
    twice.fit(X, T, epochs=3)
    trainer(str(tmp_path / "once")).fit(X, T, epochs=5)
    assert (
        summary(tmp_path / "twice")["weights_sha256"]
        == (summary(tmp_path / "once")["weights_sha256"])
    )
    assert len((tmp_path / "twice/metrics.jsonl").read_text().splitlines()) == 5


def script(path, stop_at=None):
    """Two fits on two data sets; the histories' epochs, as far as the script came."""
    X, T = problem()
    one = trainer(str(path), resume=True, checkpoint_every="3s", schedule="cosine")
    epochs = []
    write = checkpoint.write

    def stopping(directory, name, *content):
        if name == checkpoint.step_name(stop_at):
            one.request_stop()
        return write(directory, name, *content)

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(StopRequested):
        if stop_at is not None:
            patch.setattr(checkpoint, "write", stopping)
        for rows, more in ((150, 2), (90, 3), (150, 1)):  # 10, 6, 10 steps an epoch
            history = one.fit(X[:rows], T[:rows], epochs=more)
            epochs.append([record["epoch"] for record in history])
    return epochs, one.network.vector.copy()


def test_a_script_of_several_fits_that_is_run_again_ends_as_if_undisturbed(tmp_path):
    undisturbed, weights = script(tmp_path / "straight")
    assert undisturbed == [[1, 2], [3, 4, 5], [6]]
    again, same = script(tmp_path / "straight")
    assert again == [[], [], []]
    np.testing.assert_array_equal(same, weights)
    # in the first fit, at its end, in the second, at an epoch's end there, in the third, at the end
    for steps in (12, 20, 27, 32, 41, 48):
        path = tmp_path / str(steps)
        before, _ = script(path, stop_at=steps)
        after, ended = script(path)
        done = [epoch for fits in (before, after) for epochs in fits for epoch in epochs]
        assert set(done) <= set(range(1, 7)), steps
        np.testing.assert_array_equal(ended, weights, str(steps))
        for name in ("metrics.jsonl", "config.toml"):
            told = [(place / name).read_bytes() for place in (path, tmp_path / "straight")]
            assert told[0] == told[1], (steps, name)
        expected, found = summary(tmp_path / "straight"), summary(path)
        for name in ("epochs", "steps", "weights_sha256", "optimizer_sha256"):
            assert found[name] == expected[name], (steps, name)


def test_after_a_refusal_the_same_fit_goes_as_far_as_before(tmp_path):
    X, T = problem()
    trainer(str(tmp_path)).fit(X, T, epochs=3)
    on = trainer(str(tmp_path), resume=True)
    with pytest.raises(InputError, match="other data"):
        on.fit(X[1:], T[1:], epochs=5)
    assert [record["epoch"] for record in on.fit(X, T, epochs=5)] == [4, 5]
    assert [record["epoch"] for record in on.fit(X, T, epochs=1)] == [6]


def test_the_commands_say_that_arrays_of_a_program_are_in_no_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    X, T = problem()
    one = trainer("r")
    one.fit(X, T, epochs=1)
    comm = Communicator(MPI.COMM_SELF)
    for command, words in ((evaluate, ["r"]), (train, ["r/config.toml"]),
                           (train, ["--run-dir", "r", "--resume"])):  # fmt: skip
        with pytest.raises(InputError, match=r"arrays of a program.*give a file with --data"):
            command(comm, words)
    np.savez("same.npz", x_test=X, y_test=T, x_train=X, y_train=T)
    capsys.readouterr()
    evaluate(comm, ["r", "--data", "same.npz", "--json", "measures.json"])
    right = float(np.mean(one.network.predict(X) == T))
    assert json.loads((tmp_path / "measures.json").read_text())["accuracy"] == right


def test_a_directory_with_a_run_is_refused_unless_it_is_to_go_on(tmp_path):
    X, T = problem()
    trainer(str(tmp_path)).fit(X, T, epochs=1)
    with pytest.raises(InputError, match="already holds a run"):
        trainer(str(tmp_path)).fit(X, T, epochs=1)


def test_other_settings_do_not_go_on(tmp_path):
    X, T = problem()
    trainer(str(tmp_path)).fit(X, T, epochs=1)
    other = Trainer(Network([5, 9, 3], seed=1), run_dir=str(tmp_path), resume=True)
    with pytest.raises(InputError, match="was started with"):
        other.fit(X, T, epochs=2)


@pytest.mark.parametrize(
    ("name", "value"), [("checkpoint_every", "0"), ("keep", 0), ("progress", "loud")]
)
def test_a_setting_that_no_flag_takes_is_refused(name, value):
    with pytest.raises(InputError, match=name):
        trainer(**{name: value})


def before_step(monkeypatch, number, act):
    """Call `act` with the session before the step after so many."""
    inner = Session.step

    def step(self, *arguments):
        if self.position.steps == number:
            act(self)
        return inner(self, *arguments)

    monkeypatch.setattr(Session, "step", step)


def saved_steps(path):
    return sorted(int(found.stem.rpartition("-")[2]) for found in checkpoint.saved(path))


def test_checkpoints_are_written_every_second_epoch_and_at_the_end(tmp_path):
    trainer(str(tmp_path / "r"), checkpoint_every="2", keep=9).fit(*problem(), epochs=5)
    assert saved_steps(tmp_path / "r/checkpoints") == [20, 40, 50]


def test_a_stop_asked_for_in_the_last_epoch_is_its_end(tmp_path, monkeypatch):
    one = trainer(str(tmp_path / "r"))
    before_step(monkeypatch, 18, lambda session: one.request_stop())
    assert [record["epoch"] for record in one.fit(*problem(), epochs=2)] == [1, 2]
    assert summary(tmp_path / "r")["epochs"] == 2


def test_a_checkpoint_that_is_being_written_is_waited_for_where_training_diverges(
    tmp_path, monkeypatch
):
    write = checkpoint.write

    def slowly(*arguments):
        time.sleep(0.3)
        return write(*arguments)

    def spoil(session):
        session.exchange.weights[:] = np.nan

    monkeypatch.setattr(checkpoint, "write", slowly)
    before_step(monkeypatch, 11, spoil)
    with pytest.raises(DivergenceError):
        trainer(str(tmp_path / "r")).fit(*problem(), epochs=2)
    assert saved_steps(tmp_path / "r/checkpoints") == [10]
