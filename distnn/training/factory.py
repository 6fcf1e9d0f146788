"""From config to a network and an optimizer."""

import dataclasses
import inspect

from distnn.config.options import TrainConfig
from distnn.data.targets import REGRESSION
from distnn.errors import InputError
from distnn.nn import products
from distnn.nn.network import Network
from distnn.nn.optimizers import OPTIMIZERS, Optimizer
from distnn.training.loading import Shape

LOSS_OF_OUTPUT = {"softmax": "cross-entropy", "sigmoid": "binary-cross-entropy"}
OUTPUT_OF_LOSS = {loss: output for output, loss in LOSS_OF_OUTPUT.items()}


def resolve(config: TrainConfig, shape: Shape) -> TrainConfig:
    """The configuration with everything chosen that was left to the task or the optimizer.

    Raises:
        InputError: --momentum for an optimizer that has none; a --blas that is not installed;
            a --wire that does not fit.
    """
    check_wire(config.wire, config.reduce, config.precision)
    output, loss = _output_and_loss(config, shape)
    chosen = build_optimizer(config).config()
    return dataclasses.replace(
        config,
        output=output,
        loss=loss,
        window=shape.window,
        blas=products.chosen(config.blas, config.precision),
        learning_rate=chosen["learning_rate"],
        weight_decay=chosen["weight_decay"],
        momentum=chosen.get("momentum"),
    )


def _output_and_loss(config: TrainConfig, shape: Shape) -> tuple[str, str]:
    output, loss = config.output, config.loss
    if shape.task == REGRESSION:
        return output or OUTPUT_OF_LOSS.get(loss or "", "identity"), loss or "squared-error"
    if output is None:
        usual = "sigmoid" if shape.outputs == 1 else "softmax"
        # a loss that is no cross-entropy measures outputs between 0 and 1, as in document 000
        output = usual if loss is None else OUTPUT_OF_LOSS.get(loss, "sigmoid")
    return output, loss or LOSS_OF_OUTPUT.get(output, "half-squared-error")


def build_optimizer(config: TrainConfig) -> Optimizer:
    """The optimizer, with its own defaults where nothing was given.

    Raises:
        InputError: --momentum for an optimizer that has none.
    """
    rule = OPTIMIZERS[config.optimizer]
    if config.momentum is not None and "momentum" not in inspect.signature(rule).parameters:
        raise InputError(
            f"{config.optimizer} has no momentum",
            where="--momentum",
            remedy="leave it out, or use --optimizer momentum, nesterov, lars or muon",
        )
    names = ("learning_rate", "weight_decay", "momentum")
    given = {name: getattr(config, name) for name in names}
    return rule(**{name: value for name, value in given.items() if value is not None})


def build_network(config: TrainConfig, shape: Shape) -> Network:
    """The network of a resolved configuration for a data set."""
    return Network(
        [shape.features, *config.hidden, shape.outputs],
        activation=config.activation,
        output=config.output or "",
        loss=config.loss or "",
        dtype=config.precision,
        seed=config.seed,
        init=config.init,
        dropout=config.dropout,
    )


def with_network(config: TrainConfig, network: Network, optimizer: Optimizer) -> TrainConfig:
    """The options with those that a network and an optimizer hold.

    Raises:
        InputError: a wire that does not fit, see `check_wire`.
    """
    made, rule = network.config(), optimizer.config()
    values = {
        "hidden": list(network.layers[1:-1]),
        **{key: made[key] for key in ("activation", "output", "loss", "init", "dropout")},
        "precision": made["dtype"],
        "optimizer": optimizer.name,
        **{key: rule.get(key) for key in ("learning_rate", "weight_decay", "momentum")},
    }
    check_wire(config.wire, config.reduce, made["dtype"])
    given = frozenset(config.to_dict()) - {"data", "epochs"}  # a resumed run must have the same
    return dataclasses.replace(config, **values, given=given)


def check_wire(wire: str, reduce: str, precision: str) -> None:
    """InputError if gradients cannot be rounded where these options have them added up."""
    what = f"wire {wire} rounds each sum of gradients"
    if wire != "float32" and reduce != "ordered":
        raise InputError(f"{what}, and MPI makes its own", "wire", "use --reduce ordered")
    if wire != "float32" and precision == "float64":
        raise InputError(f"{what}, and float64 is not rounded", "wire", "use float32")
