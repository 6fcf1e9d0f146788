"""What every format says of a trained network: arrays under common names, and texts."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import distnn
from distnn.data.scaling import Scaling
from distnn.run.checkpoint import weights_sha256
from distnn.training.output import decided
from distnn.training.prediction import Trained

Array = NDArray[Any]


def labels(trained: Trained) -> Array:
    """What is predicted for each class: (classes,) text or int64."""
    n = trained.network.layers[-1]
    return decided(trained, np.eye(n) if n > 1 else np.array([[0.0], [1.0]]))


def targets(trained: Trained) -> list[str]:
    """Names of the real targets."""
    return trained.target_names or [f"output_{k}" for k in range(trained.network.layers[-1])]


def features(trained: Trained) -> Sequence[str]:
    """Names of the features, where the training data had some."""
    return trained.preparation.features if trained.preparation is not None else []


def layers(trained: Trained) -> Iterator[tuple[Array, Array]]:
    """Weights (out, in) and biases (out,) of each layer, as PyTorch's Linear has them."""
    for W in trained.network.weights:
        yield np.ascontiguousarray(W[1:].T), W[0].copy()


def arrays(trained: Trained) -> dict[str, Array]:
    """All arrays by name, in the network's type.

    ``layers.N.weight`` (out, in) and ``layers.N.bias`` (out,), N from 0; ``shift`` and
    ``scale`` (features,): a feature x becomes (x - shift) * scale; for regression,
    ``target_shift`` and ``target_scale`` (targets,): an output a becomes a / scale + shift, and
    of that the exponential where ``target_transform`` is log.
    """
    found = {"shift": trained.scaling.shift, "scale": trained.scaling.scale}
    for l, (weight, bias) in enumerate(layers(trained)):
        found |= {f"layers.{l}.weight": weight, f"layers.{l}.bias": bias}
    if not trained.is_classification:
        scaling = trained.units.scaling or Scaling.none(trained.network.layers[-1])
        found |= {"target_shift": scaling.shift, "target_scale": scaling.scale}
    return {name: array.astype(trained.network.dtype) for name, array in found.items()}


def texts(trained: Trained) -> dict[str, str]:
    """All else, as text; lists and the preparation of columns as JSON."""
    network, preparation = trained.network, trained.preparation
    found: dict[str, Any] = {
        "distnn": distnn.__version__,
        "checkpoint": trained.checkpoint.path.name,
        "weights_sha256": weights_sha256(network.weights),
        "task": trained.task,
        "activation": network.activation,
        "output": network.output,
        "precision": network.precision,
        "features": list(features(trained)),
    }
    if preparation is not None:
        found["columns"] = [column.name for column in preparation.columns]
        found["preparation"] = preparation.to_json()
    if trained.is_classification:
        found["classes"] = labels(trained).tolist()
    else:
        found["targets"] = targets(trained)
        found["target_transform"] = trained.units.transform or "none"
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in found.items()}


def explanation(trained: Trained) -> str:
    """In a sentence: what it is."""
    widths = "-".join(map(str, trained.network.layers))
    if trained.is_classification:
        return f"{widths}, classification, {len(labels(trained))} classes, trained with distnn"
    return f"{widths}, regression, {len(targets(trained))} targets, trained with distnn"
