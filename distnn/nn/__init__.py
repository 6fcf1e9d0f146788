"""The mathematics: network, activations, losses, optimizers, schedules. numpy only."""

from distnn.nn.activations import ACTIVATIONS
from distnn.nn.backprop import SlicePass
from distnn.nn.initializers import INITIALIZERS
from distnn.nn.losses import LOSSES
from distnn.nn.network import Network
from distnn.nn.optimizers import (
    OPTIMIZERS,
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    Momentum,
    Nesterov,
    Optimizer,
    RMSProp,
)
from distnn.nn.outputs import OUTPUTS
from distnn.nn.schedules import SCHEDULES

__all__ = [
    "ACTIVATIONS",
    "INITIALIZERS",
    "LOSSES",
    "OPTIMIZERS",
    "OUTPUTS",
    "SCHEDULES",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Momentum",
    "Nesterov",
    "Network",
    "Optimizer",
    "RMSProp",
    "SlicePass",
]
