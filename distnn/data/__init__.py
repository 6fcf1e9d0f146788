"""Where rows come from: formats, checks, scaling, epoch order. No MPI."""

from distnn.data.order import epoch_order
from distnn.data.rows import Rows, fill
from distnn.data.scaling import Scaling
from distnn.data.sources import (
    Part,
    Source,
    check_features,
    open_data,
    open_features,
    open_test_data,
)
from distnn.data.targets import CLASSIFICATION, REGRESSION, Targets, check_like

__all__ = [
    "CLASSIFICATION",
    "REGRESSION",
    "Part",
    "Rows",
    "Scaling",
    "Source",
    "Targets",
    "check_features",
    "check_like",
    "epoch_order",
    "fill",
    "open_data",
    "open_features",
    "open_test_data",
]
