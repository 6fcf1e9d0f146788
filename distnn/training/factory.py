"""From settings to a network, an optimizer and a trainer."""

import dataclasses
import inspect
from typing import Any

from distnn.config.options import Settings
from distnn.data.targets import REGRESSION
from distnn.errors import InputError
from distnn.nn import products
from distnn.nn.network import Network
from distnn.nn.optimizers import OPTIMIZERS, Optimizer
from distnn.parallel.comm.communicator import Communicator
from distnn.training.loading import Shape
from distnn.training.trainer import Trainer

LOSS_OF_OUTPUT = {"softmax": "cross-entropy", "sigmoid": "binary-cross-entropy"}
OUTPUT_OF_LOSS = {loss: output for output, loss in LOSS_OF_OUTPUT.items()}


def resolve(settings: Settings, shape: Shape) -> Settings:
    """The settings with everything chosen that was left to the task or the optimizer.

    Raises:
        InputError: --momentum for an optimizer that has none; MKL asked for and not installed.
    """
    output, loss = _output_and_loss(settings, shape)
    chosen = build_optimizer(settings).config()
    return dataclasses.replace(
        settings,
        output=output,
        loss=loss,
        blas=products.chosen(settings.blas),
        learning_rate=chosen["learning_rate"],
        weight_decay=chosen["weight_decay"],
        momentum=chosen.get("momentum"),
    )


def _output_and_loss(settings: Settings, shape: Shape) -> tuple[str, str]:
    output, loss = settings.output, settings.loss
    if shape.task == REGRESSION:
        return output or OUTPUT_OF_LOSS.get(loss or "", "identity"), loss or "squared-error"
    if output is None:
        usual = "sigmoid" if shape.outputs == 1 else "softmax"
        # a loss that is no cross-entropy measures outputs between 0 and 1, as in document 000
        output = usual if loss is None else OUTPUT_OF_LOSS.get(loss, "sigmoid")
    return output, loss or LOSS_OF_OUTPUT.get(output, "half-squared-error")


def build_optimizer(settings: Settings) -> Optimizer:
    """The optimizer, with its own defaults where nothing was given.

    Raises:
        InputError: --momentum for an optimizer that has none.
    """
    rule = OPTIMIZERS[settings.optimizer]
    known = inspect.signature(rule).parameters
    arguments: dict[str, Any] = {}
    if settings.learning_rate is not None:
        arguments["learning_rate"] = settings.learning_rate
    if settings.weight_decay is not None:
        arguments["weight_decay"] = settings.weight_decay
    if settings.momentum is not None:
        if "momentum" not in known:
            raise InputError(
                f"{settings.optimizer} has no momentum",
                where="--momentum",
                remedy="leave it out, or use --optimizer momentum or nesterov",
            )
        arguments["momentum"] = settings.momentum
    return rule(**arguments)


def build_network(settings: Settings, shape: Shape) -> Network:
    """The network of resolved settings for a data set."""
    return Network(
        [shape.features, *settings.hidden, shape.outputs],
        activation=settings.activation,
        output=settings.output or "",
        loss=settings.loss or "",
        dtype=settings.precision,
        seed=settings.seed,
        init=settings.init,
        dropout=settings.dropout,
    )


def build_trainer(
    settings: Settings, network: Network, optimizer: Optimizer, comm: Communicator
) -> Trainer:
    """The trainer of resolved settings."""
    return Trainer(
        network,
        optimizer,
        batch_size=settings.batch_size,
        slices=settings.slices,
        seed=settings.seed,
        comm=comm,
        reduce=settings.reduce,
        update=settings.update,
        blas=settings.blas,
        clip_norm=settings.clip_norm,
        schedule=settings.schedule,
        warmup=settings.warmup,
        checkpoint_every=settings.checkpoint_every,
        stall_timeout=settings.stall_timeout,
    )
