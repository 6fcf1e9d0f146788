"""The mathematics: network, activations, losses, optimizers, schedules. numpy only."""

from distnn.nn.activations import ACTIVATIONS
from distnn.nn.backprop import SlicePass
from distnn.nn.initializers import INITIALIZERS
from distnn.nn.losses import LOSSES
from distnn.nn.network import Network
from distnn.nn.optimizers import (
    LAMB,
    LARS,
    OPTIMIZERS,
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    Momentum,
    Muon,
    NAdamW,
    Nesterov,
    Optimizer,
    RMSProp,
)
from distnn.nn.outputs import OUTPUTS
from distnn.nn.schedules import SCHEDULES

__all__ = [
    "ACTIVATIONS",
    "INITIALIZERS",
    "LAMB",
    "LARS",
    "LOSSES",
    "OPTIMIZERS",
    "OUTPUTS",
    "SCHEDULES",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Momentum",
    "Muon",
    "NAdamW",
    "Nesterov",
    "Network",
    "Optimizer",
    "RMSProp",
    "SlicePass",
]
