"""distnn trains dense neural networks data-parallel over MPI ranks, on numpy and mpi4py.

The public names are loaded when they are first used: a command sets the number of BLAS threads
before numpy is there, and 256 ranks import no more than they need.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from distnn.errors import DistnnError, DivergenceError, InputError, RankFailed, StopRequested
    from distnn.nn.network import Network
    from distnn.nn.optimizers import (
        LAMB,
        LARS,
        SGD,
        AdaGrad,
        Adam,
        AdamW,
        Momentum,
        Muon,
        NAdamW,
        Nesterov,
        RMSProp,
    )
    from distnn.training.framed import prepare
    from distnn.training.model import load
    from distnn.training.own_gradient import GradientTrainer
    from distnn.training.reservoir import Reservoir
    from distnn.training.trainer import Trainer

_HOMES = {
    "Network": "nn.network",
    "Trainer": "training.trainer",
    "GradientTrainer": "training.own_gradient",
    "Reservoir": "training.reservoir",
    "SGD": "nn.optimizers",
    "Momentum": "nn.optimizers",
    "Nesterov": "nn.optimizers",
    "AdaGrad": "nn.optimizers",
    "RMSProp": "nn.optimizers",
    "Adam": "nn.optimizers",
    "AdamW": "nn.optimizers",
    "NAdamW": "nn.optimizers",
    "LARS": "nn.optimizers",
    "LAMB": "nn.optimizers",
    "Muon": "nn.optimizers",
    "DistnnError": "errors",
    "InputError": "errors",
    "DivergenceError": "errors",
    "RankFailed": "errors",
    "StopRequested": "errors",
    "load": "training.model",
    "prepare": "training.framed",
}

__all__ = [
    "LAMB",
    "LARS",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "DistnnError",
    "DivergenceError",
    "GradientTrainer",
    "InputError",
    "Momentum",
    "Muon",
    "NAdamW",
    "Nesterov",
    "Network",
    "RMSProp",
    "RankFailed",
    "Reservoir",
    "StopRequested",
    "Trainer",
    "load",
    "prepare",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
