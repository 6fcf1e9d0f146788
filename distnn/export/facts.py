"""What every format says of a trained network: arrays under common names, and texts."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import distnn
from distnn.data.preparation import Preparation
from distnn.data.scaling import Scaling, Units
from distnn.nn.network import Network
from distnn.run.checkpoint import weights_sha256
from distnn.training.output import decided
from distnn.training.prediction import Trained

Array = NDArray[Any]


class Facts:
    """A trained network, as other programs have them: weights (out, in), and the bias apart."""

    def __init__(self, trained: Trained) -> None:
        self._trained = trained

    @property
    def network(self) -> Network:
        """With the trained weights."""
        return self._trained.network

    @property
    def scaling(self) -> Scaling:
        """Of the features."""
        return self._trained.scaling

    @property
    def units(self) -> Units:
        """Of the targets."""
        return self._trained.units

    @property
    def preparation(self) -> Preparation | None:
        """Of a table's columns."""
        return self._trained.preparation

    @property
    def is_classification(self) -> bool:
        """Whether the network decides for classes."""
        return self._trained.is_classification

    @property
    def labels(self) -> Array:
        """What is predicted for each class: (classes,) text or int64."""
        n = self.network.layers[-1]
        return decided(self._trained, np.eye(n) if n > 1 else np.array([[0.0], [1.0]]))

    @property
    def targets(self) -> list[str]:
        """Names of the real targets."""
        names = self._trained.target_names
        return names or [f"output_{k}" for k in range(self.network.layers[-1])]

    @property
    def features(self) -> Sequence[str]:
        """Names of the features, where the training data had some."""
        return self.preparation.features if self.preparation is not None else []

    def layers(self) -> Iterator[tuple[Array, Array]]:
        """Weights (out, in) and biases (out,) of each layer, as PyTorch's Linear has them."""
        for W in self.network.weights:
            yield np.ascontiguousarray(W[1:].T), W[0].copy()

    def arrays(self) -> dict[str, Array]:
        """All arrays by name, in the network's type.

        ``layers.N.weight`` (out, in) and ``layers.N.bias`` (out,), N from 0; ``shift`` and
        ``scale`` (features,): a feature x becomes (x - shift) * scale; for regression,
        ``target_shift`` and ``target_scale`` (targets,): an output a becomes a / scale + shift, and
        of that the exponential where ``target_transform`` is log.
        """
        found = {"shift": self.scaling.shift, "scale": self.scaling.scale}
        for l, (weight, bias) in enumerate(self.layers()):
            found |= {f"layers.{l}.weight": weight, f"layers.{l}.bias": bias}
        if not self.is_classification:
            scaling = self.units.scaling or Scaling.none(self.network.layers[-1])
            found |= {"target_shift": scaling.shift, "target_scale": scaling.scale}
        return {name: array.astype(self.network.dtype) for name, array in found.items()}

    def texts(self) -> dict[str, str]:
        """All else, as text; lists and the preparation of columns as JSON."""
        network = self.network
        found: dict[str, Any] = {
            "distnn": distnn.__version__,
            "checkpoint": self._trained.checkpoint.path.name,
            "weights_sha256": weights_sha256(network.weights),
            "task": self._trained.task,
            "activation": network.activation,
            "output": network.output,
            "precision": network.precision,
            "features": list(self.features),
        }
        if self.preparation is not None:
            found["columns"] = [column.name for column in self.preparation.columns]
            found["preparation"] = self.preparation.to_json()
        if self.is_classification:
            found["classes"] = self.labels.tolist()
        else:
            found["targets"] = self.targets
            found["target_transform"] = self.units.transform or "none"
        return {k: v if isinstance(v, str) else json.dumps(v) for k, v in found.items()}

    def explanation(self) -> str:
        """In a sentence: what it is."""
        widths = "-".join(map(str, self.network.layers))
        if self.is_classification:
            return f"{widths}, classification, {len(self.labels)} classes, trained with distnn"
        return f"{widths}, regression, {len(self.targets)} targets, trained with distnn"
