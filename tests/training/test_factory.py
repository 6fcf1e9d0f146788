"""What the task decides where the command line leaves it open."""

import pytest

from distnn.config.options import TrainConfig
from distnn.errors import InputError
from distnn.nn.optimizers import OPTIMIZERS
from distnn.training.factory import build_network, build_optimizer, resolve
from distnn.training.loading import Shape


def shape(task: str, outputs: int) -> Shape:
    classes = max(2, outputs) if task == "classification" else 0
    return Shape(task, 3, outputs, classes, train_items=10, test_items=0)


@pytest.mark.parametrize(
    ("task", "outputs", "output", "loss", "expected"),
    [
        ("classification", 3, None, None, ("softmax", "cross-entropy")),
        ("classification", 1, None, None, ("sigmoid", "binary-cross-entropy")),
        ("classification", 3, "sigmoid", None, ("sigmoid", "binary-cross-entropy")),
        ("classification", 3, "tanh", None, ("tanh", "half-squared-error")),
        ("classification", 3, None, "half-squared-error", ("sigmoid", "half-squared-error")),
        ("classification", 3, None, "binary-cross-entropy", ("sigmoid", "binary-cross-entropy")),
        ("classification", 3, "softmax", "squared-error", ("softmax", "squared-error")),
        ("regression", 2, None, None, ("identity", "squared-error")),
        ("regression", 2, None, "huber", ("identity", "huber")),
        ("regression", 1, "tanh", None, ("tanh", "squared-error")),
        ("regression", 2, None, "cross-entropy", ("softmax", "cross-entropy")),
    ],
)
def test_output_and_loss(
    task: str, outputs: int, output: str | None, loss: str | None, expected: tuple[str, str]
) -> None:
    resolved = resolve(TrainConfig(output=output, loss=loss), shape(task, outputs))
    assert (resolved.output, resolved.loss) == expected


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizers_own_numbers_are_recorded(name: str) -> None:
    settings = TrainConfig(optimizer=name)
    resolved = resolve(settings, shape("classification", 3))
    own = OPTIMIZERS[name]()
    assert resolved.learning_rate == own.learning_rate
    assert resolved.weight_decay == own.weight_decay
    assert resolved.momentum == getattr(own, "momentum", None)
    assert build_optimizer(resolved).config() == build_optimizer(settings).config()
    assert resolve(resolved, shape("classification", 3)) == resolved


def test_momentum_for_an_optimizer_without() -> None:
    with pytest.raises(InputError, match="--momentum: adam has no momentum"):
        build_optimizer(TrainConfig(momentum=0.9))
    optimizer = build_optimizer(TrainConfig(optimizer="nesterov", momentum=0.5, learning_rate=2.0))
    assert (optimizer.config()["momentum"], optimizer.learning_rate) == (0.5, 2.0)


def test_the_network_of_a_data_set() -> None:
    settings = resolve(
        TrainConfig(hidden=[7, 5], activation="gelu", precision="float64", seed=4, dropout=0.5),
        shape("regression", 2),
    )
    network = build_network(settings, shape("regression", 2))
    assert network.layers == (3, 7, 5, 2)
    assert network.config() == {
        "layers": [3, 7, 5, 2], "activation": "gelu", "output": "identity",
        "loss": "squared-error", "dtype": "float64", "seed": 4, "init": None, "dropout": 0.5,
    }  # fmt: skip
