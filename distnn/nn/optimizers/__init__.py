"""Optimizers: from weights w and gradient g to new weights, in place.

    base         what an optimizer is, and what rules have in common
    elementwise  rules for any block of a vector
    layerwise    LARS and LAMB, which need norms of a layer
    muon         Muon, which needs products of a layer's matrix

Which one to take for which batch: see README.md here.
"""

from distnn.nn.optimizers.base import Optimizer, Rule, descend
from distnn.nn.optimizers.elementwise import (
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    Momentum,
    NAdamW,
    Nesterov,
    RMSProp,
)
from distnn.nn.optimizers.layerwise import LAMB, LARS
from distnn.nn.optimizers.muon import Muon

OPTIMIZERS: dict[str, type[Optimizer]] = {
    rule.name: rule
    for rule in (
        SGD, Momentum, Nesterov, AdaGrad, RMSProp, Adam, AdamW, NAdamW, LARS, LAMB, Muon,
    )
}  # fmt: skip

__all__ = [
    "LAMB",
    "LARS",
    "OPTIMIZERS",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Momentum",
    "Muon",
    "NAdamW",
    "Nesterov",
    "Optimizer",
    "RMSProp",
    "Rule",
    "descend",
]
