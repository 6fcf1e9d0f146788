"""Batches that grow from epoch to epoch."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn import InputError, Network, Trainer
from distnn.config.options import TrainConfig
from distnn.data.order import epoch_order
from distnn.nn.optimizers import SGD
from distnn.run.position import Position
from distnn.training.batches import Batches


def test_sizes_grow_by_the_same_factor():
    batches = Batches(items=60_000, first=64, largest=4096, growth=3)
    assert [batches.size(epoch) for epoch in range(6)] == [64, 256, 1024, 4096, 4096, 4096]
    assert [batches.steps(epoch) for epoch in range(4)] == [938, 235, 59, 15]


@given(
    items=st.integers(1, 500), first=st.integers(1, 50), more=st.integers(0, 400),
    growth=st.integers(0, 6), epochs=st.integers(0, 9),
)  # fmt: skip
def test_steps_and_items_of_all_epochs_add_up(items, first, more, growth, epochs):
    batches = Batches(items, first, first + more, growth)
    sizes = [batches.size(epoch) for epoch in range(epochs + 1)]
    assert sizes == sorted(sizes)
    assert batches.steps_until(epochs) == sum(math.ceil(items / size) for size in sizes[:-1])
    assert batches.items_until(Position(epoch=epochs)) == epochs * items
    last = batches.steps(epochs)
    assert batches.items_until(Position(epoch=epochs, step=last)) == (epochs + 1) * items


@pytest.mark.parametrize(
    ("before", "now", "items"),
    [((0, 0), (0, 2), 16), ((0, 2), (1, 0), 4), ((0, 0), (0, 3), 20), ((1, 1), (3, 2), 48)],
)
def test_items_between_two_positions(before, now, items):
    """Epochs of 20 items in batches of 8: the third has 4."""
    batches = Batches(20, 8, 8, 0)
    assert batches.items_until(Position(*now)) - batches.items_until(Position(*before)) == items


def test_a_batch_cannot_grow_down():
    with pytest.raises(InputError, match="base-batch 64 to --batch-size 32"):
        Trainer(Network([2, 3]), batch_size=32, batch_warmup_epochs=1)


@pytest.mark.mpi
def test_a_training_takes_the_batches_of_each_epoch_and_rates_to_match():
    """Gradient descent restated: batches of 4, 8 and 16, rates as their square roots, and a
    schedule of epochs: a rise in the first half one, which is 2 steps of 16, then a line to 0."""
    rng = np.random.default_rng(5)
    X, T = rng.standard_normal((50, 3)), rng.integers(0, 2, 50)
    network = Network([3, 5, 2], "tanh", dtype="float64", seed=7)
    w = network.vector.copy()
    options = {
        "batch_size": 16, "base_batch": 4, "scale_learning_rate": "sqrt", "slices": 4,
        "schedule": "linear", "warmup_epochs": 0.5,
    }  # fmt: skip
    trainer = Trainer(network, SGD(0.1), batch_warmup_epochs=2, seed=3, **options)
    records = trainer.fit(X, T, 3)
    restated = Network([3, 5, 2], "tanh", dtype="float64")
    steps = 0
    for epoch, batch in enumerate((4, 8, 16)):
        order = epoch_order(50, 3, epoch)
        of_epoch = np.split(order, range(batch, 50, batch))
        for step, rows in enumerate(of_epoch):
            t = 4 * (epoch + step / len(of_epoch)) + 1  # in steps of 16 rows, 4 of an epoch
            course = t / 2 if t <= 2 else 1 - (t - 2 - 1) / (3 * 4 - 2)
            rate = 0.1 * math.sqrt(batch / 4) * course
            restated.vector[:] = w
            _, gradients = restated.loss_and_gradients(X[rows], T[rows])
            w -= rate * np.concatenate([g.ravel() for g in gradients])
            steps += 1
        assert records[epoch]["step"] == steps
        assert records[epoch]["learning_rate"] == pytest.approx(rate)
    if trainer.comm.is_first:
        assert np.allclose(network.vector, w, rtol=0, atol=1e-12)


def test_a_stop_in_a_growing_epoch_is_gone_on_from(tmp_path):
    """From the first epoch, the second, its end, and from epochs of the largest batches."""
    rng = np.random.default_rng(5)
    X, T = rng.standard_normal((30, 3)), rng.integers(0, 2, 30)
    options = {
        "batch_size": 20, "base_batch": 2, "batch_warmup_epochs": 2, "seed": 3, "slices": 2,
        "schedule": "cosine",
    }  # fmt: skip
    whole = Network([3, 4, 2], seed=1)
    Trainer(whole, **options).fit(X, T, 4)
    for steps in (1, 14, 16, 19, 21):
        run = tmp_path / str(steps)
        parts = Network([3, 4, 2], seed=1)
        Trainer(parts, run_dir=run, checkpoint_every=f"{steps}s", keep=100, **options).fit(X, T, 4)
        checkpoints = sorted((run / "checkpoints").glob("step-*"))
        assert len(checkpoints) > 1
        for path in checkpoints[1:]:
            path.unlink()
        again = Network([3, 4, 2], seed=1)
        Trainer(again, run_dir=run, resume=True, **options).fit(X, T, 4)
        assert np.array_equal(again.vector, whole.vector)


def test_the_options_are_those_of_a_training():
    config = TrainConfig(base_batch=8, batch_size=32, batch_warmup_epochs=2)
    assert Batches.of(config, 100) == Batches(100, 8, 32, 2)
