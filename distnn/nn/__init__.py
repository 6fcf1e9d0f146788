"""The mathematics: network, activations, losses, optimizers, schedules. numpy only."""

from distnn.nn.activations import ACTIVATIONS
from distnn.nn.backprop import SlicePass
from distnn.nn.initializers import INITIALIZERS
from distnn.nn.losses import LOSSES
from distnn.nn.network import Network
from distnn.nn.outputs import OUTPUTS

__all__ = [
    "ACTIVATIONS",
    "INITIALIZERS",
    "LOSSES",
    "OUTPUTS",
    "Network",
    "SlicePass",
]
