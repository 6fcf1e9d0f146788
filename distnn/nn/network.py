"""A dense network: its shape, its weights, and its passes on one machine."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distnn.checks import LARGEST_COUNT, LARGEST_SEED, MOST_LAYERS, choice, number, shown
from distnn.errors import InputError
from distnn.nn.activations import ACTIVATIONS
from distnn.nn.backprop import SlicePass
from distnn.nn.initializers import INITIALIZERS
from distnn.nn.layout import Array, aligned, matrices, total_size, weight_shapes
from distnn.nn.losses import LOSSES
from distnn.nn.outputs import check_pair
from distnn.nn.products import BFLOAT16
from distnn.nn.rng import WEIGHTS, Stream

ROWS_AT_ONCE = 1024  # forward() goes through its rows in slices of this many

DTYPES = ("float32", "float64", "bfloat16")
MOST_BYTES = 2**62  # of the weights; beyond, sizes overflow
WIDTHS_REMEDY = f"give 2 to {MOST_LAYERS + 2} widths, input first: [64, 32, 10]"


class Network:
    """A dense network and its weights ``W[l]`` (1 + n_in, n_out), row 0 the bias.

    Args:
        layers: widths, from input to output: ``[64, 32, 10]``.
        activation: of the hidden layers; a name of ``ACTIVATIONS``.
        output: activation of the last layer; a name of ``OUTPUTS``.
        loss: a name of ``LOSSES``.
        dtype: "float32", "float64" or "bfloat16". With bfloat16, the factors of every matrix
            product are rounded to it; sums, weights and everything else are float32.
        seed: of the initial weights and of dropout; 0 <= seed < 2**63.
        init: a name of ``INITIALIZERS``; None: by the activation of each layer.
        dropout: probability to drop a hidden unit in training, in [0, 1).

    Raises:
        InputError: any of these is not so, or output and loss do not fit.
    """

    def __init__(
        self,
        layers: Sequence[int],
        activation: str = "relu",
        output: str = "softmax",
        loss: str = "cross-entropy",
        dtype: str = "float32",
        seed: int = 0,
        init: str | None = None,
        dropout: float = 0.0,
    ) -> None:
        self.layers = _checked_widths(layers)
        check_pair(output, loss, self.layers[-1])
        self.activation = choice(activation, "activation", ACTIVATIONS)
        self.init = None if init is None else choice(init, "init", INITIALIZERS)
        self.output, self.loss = output, loss
        self.precision = _checked_dtype(dtype)
        self.dtype = np.dtype(np.float32 if self.precision == BFLOAT16 else self.precision)
        self.seed = number(seed, "seed", whole=True, least=0, most=LARGEST_SEED)
        self.dropout = number(dropout, "dropout", least=0, below=1)
        self.shapes = weight_shapes(self.layers)
        self.size = total_size(self.shapes)
        if self.size * self.dtype.itemsize > MOST_BYTES:
            what = f"{shown(list(self.layers))} make {self.size} weights"
            raise InputError(what, "layers", "give smaller widths")
        self._vector: Array | None = None
        self._weights: list[Array] = []

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.config().items())
        return f"Network({arguments})"

    def config(self) -> dict[str, Any]:
        """Plain values that rebuild the network, without its weights: ``Network(**config)``."""
        return {
            "layers": list(self.layers),
            "activation": self.activation,
            "output": self.output,
            "loss": self.loss,
            "dtype": self.precision,
            "seed": self.seed,
            "init": self.init,
            "dropout": self.dropout,
        }

    # Weights

    @property
    def weights(self) -> list[Array]:
        """``[W[1], ..., W[L]]``: writable views, (1 + n_in, n_out), row 0 the bias.

        They stay valid: when a ``Trainer.fit`` has ended, they show what the weights became.
        """
        if self._vector is None:
            vector = aligned((self.size,), self.dtype)
            self.draw(vector)
            self.bind(vector)
        return self._weights

    @property
    def has_weights(self) -> bool:
        """Whether weights were bound, loaded or drawn already; they are drawn on first use."""
        return self._vector is not None

    @property
    def vector(self) -> Array:
        """All weights as one flat vector (size,), in layer order, C layout."""
        if self._vector is None:
            _ = self.weights  # draws them
        assert self._vector is not None
        return self._vector

    def views(self, vector: Array) -> list[Array]:
        """A flat vector (size,) as matrices shaped as the weights."""
        return matrices(vector, self.shapes)

    def bind(self, vector: Array) -> None:
        """Use this vector (size,) as the memory of the weights, with the values it holds."""
        assert vector.shape == (self.size,), (vector.shape, self.size)
        assert vector.dtype == self.dtype, (vector.dtype, self.dtype)
        self._vector = vector
        self._weights = self.views(vector)

    def load(self, vector: Array) -> None:
        """Set the weights to these (size,); existing views of the weights show the new values."""
        if self.has_weights:
            self.vector[:] = vector
        else:
            self.bind(vector)

    def draw(self, vector: Array) -> None:
        """Write the initial weights into a flat vector (size,), drawn from (seed, layer)."""
        stream = Stream(self.seed, WEIGHTS)
        for l, W in enumerate(self.views(vector), start=1):
            INITIALIZERS[self._initializer(l)](stream.at(l), W)

    def _initializer(self, l: int) -> str:
        if self.init is not None:
            return self.init
        activation = self.activation if l < len(self.shapes) else self.output
        return "glorot" if activation == "softmax" else ACTIVATIONS[activation].initial

    # Rows and targets

    def rows(self, X: ArrayLike) -> Array:
        """X as (b, n_0) matrix of the network's dtype.

        Raises:
            InputError: not numbers, not finite, or not n_0 features.
        """
        X = _numbers(X, "X")
        matrix = X.reshape(len(X), -1) if X.ndim > 1 and X.size else X
        if matrix.ndim != 2 or matrix.shape[1] != self.layers[0]:
            raise InputError(
                f"has shape {X.shape}",
                where="X",
                remedy=f"the network takes rows of {self.layers[0]} features",
            )
        return _finite(matrix, self.dtype, "X")

    def targets(self, T: ArrayLike) -> Array:
        """T as (n, n_L) matrix of the network's dtype.

        Args:
            T: class numbers (n,) where the network has more than one output;
                else one-hot or soft labels, or real targets, (n, n_L) or (n,).

        Raises:
            InputError: not numbers, not finite, another number of outputs, or out of range.
        """
        T = self.compact_targets(T)
        if T.ndim == 2:
            return T
        one_hot = np.zeros((len(T), self.layers[-1]), self.dtype)
        one_hot[np.arange(len(T)), T] = 1
        return one_hot

    def compact_targets(self, T: ArrayLike) -> NDArray[Any]:
        """As ``targets``, but class numbers stay (n,) intp: a fraction of one-hot's memory."""
        T = _numbers(T, "targets")
        n_out = self.layers[-1]
        if T.ndim == 1 and n_out > 1:
            return self._class_numbers(T)
        if T.ndim == 1:
            T = T[:, None]
        if T.ndim != 2 or T.shape[1] != n_out:
            raise InputError(
                f"have shape {T.shape}",
                where="targets",
                remedy=f"the network has {n_out} outputs: give (n, {n_out})"
                + (" or class numbers (n,)" if n_out > 1 else " or (n,)"),
            )
        loss = LOSSES[self.loss]
        matrix = _finite(T, self.dtype, "targets")
        if T.size and (T.min() < loss.lowest or T.max() > loss.highest):
            raise InputError(
                f"lie between {T.min()} and {T.max()}",
                where="targets",
                remedy=f"{self.loss} takes targets from {loss.lowest} to {loss.highest}",
            )
        return matrix

    def _class_numbers(self, classes: NDArray[Any]) -> NDArray[np.intp]:
        n_out = self.layers[-1]
        classes = _finite(classes, np.dtype(np.float64), "targets")  # bool as well
        wrong = (classes < 0) | (classes >= n_out) | (classes % 1 != 0)
        if wrong.any():
            first = int(wrong.argmax())
            raise InputError(
                f"item {first} is {classes[first]:g}",
                where="targets",
                remedy=f"class numbers are whole, from 0 to {n_out - 1}",
            )
        return classes.astype(np.intp)

    # Passes

    def forward(self, X: ArrayLike) -> Array:
        """The outputs (b, n_L) for rows X (b, n_0)."""
        X = self.rows(X)
        outputs = np.empty((len(X), self.layers[-1]), self.dtype)
        run = SlicePass(self, min(len(X), ROWS_AT_ONCE))
        with np.errstate(over="ignore", under="ignore"):
            for start in range(0, len(X), ROWS_AT_ONCE):
                part = X[start : start + ROWS_AT_ONCE]
                A0 = run.input(len(part))
                A0[:, 1:] = part
                outputs[start : start + len(part)] = run.outputs(A0)
        return outputs

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Class numbers (b,) where the outputs are softmax or sigmoid, else the outputs (b, n_L).

        One sigmoid output says class 1 from 0.5 on.
        """
        outputs = self.forward(X)
        return decide(outputs) if self.output in ("softmax", "sigmoid") else outputs

    def loss_and_gradients(self, X: ArrayLike, T: ArrayLike) -> tuple[float, list[Array]]:
        """Mean loss over the b rows, and the gradients of that mean, without dropout.

        Args:
            X: rows (b, n_0), b >= 1.
            T: targets, see ``targets``.

        Returns:
            The mean loss, and one gradient per layer, shaped as ``weights``.

        Raises:
            InputError: X or T do not fit the network or each other, or are empty.
        """
        X, T = self.rows(X), self.targets(T)
        if len(X) != len(T):
            raise InputError(
                f"{len(X)} rows and {len(T)} targets", where="X", remedy="give one target per row"
            )
        if not len(X):
            raise InputError("has no rows", where="X", remedy="give at least one")
        run = SlicePass(self, len(X))
        A0 = run.input(len(X))
        A0[:, 1:] = X
        gradients = self.views(aligned((self.size,), self.dtype))
        with np.errstate(over="ignore", under="ignore"):
            loss = float(run.forward(A0, T))
            run.backward(gradients, 1 / len(X))
        return loss / len(X), gradients


def decide(outputs: Array) -> NDArray[np.intp]:
    """Class numbers (b,) of outputs (b, n_L); a single output says class 1 from 0.5 on."""
    if outputs.shape[1] == 1:
        return (outputs[:, 0] >= 0.5).astype(np.intp)
    return outputs.argmax(axis=1)


def probabilities_of(outputs: Array) -> Array:
    """Probabilities (b, classes) of outputs (b, n_L); a single output is that of class 1."""
    return outputs if outputs.shape[1] > 1 else np.hstack([1 - outputs, outputs])


def _numbers(values: ArrayLike, where: str) -> NDArray[Any]:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):  # lists of different lengths, or what is no array at all
        raise InputError("is no array", where=where, remedy="give an array of numbers") from None
    if array.dtype.kind not in "biuf":
        raise InputError(f"holds {array.dtype}", where=where, remedy="give real numbers")
    if array.ndim == 0:
        raise InputError("is a single number", where=where, remedy="give an array of items")
    return array


def _finite(array: NDArray[Any], dtype: "np.dtype[Any]", where: str) -> Array:
    """The array in C layout and this dtype."""
    with np.errstate(over="ignore"):  # reported below
        result = np.ascontiguousarray(array, dtype)
    if not np.isfinite(result).all():
        if np.isfinite(array).all():
            raise InputError(f"a number beyond the range of {dtype}", where, "use float64")
        raise InputError(f"NaN or infinity in {dtype}", where=where, remedy="clean the data first")
    return result


def _checked_widths(layers: Sequence[int]) -> tuple[int, ...]:
    try:
        widths = tuple(number(n, "layers", whole=True, least=1, most=LARGEST_COUNT) for n in layers)
    except TypeError:
        raise InputError(f"{shown(layers)} is not a list", "layers", WIDTHS_REMEDY) from None
    if not 2 <= len(widths) <= MOST_LAYERS + 2:
        raise InputError(f"has {len(widths)} widths", "layers", WIDTHS_REMEDY)
    return widths


def _checked_dtype(dtype: object) -> str:
    name: object = dtype
    if isinstance(dtype, (str, type, np.dtype)):  # numpy takes much else for a dtype
        with suppress(TypeError, ValueError, SyntaxError):  # it reads words as Python, too
            name = np.dtype(dtype).name
    return choice(name, "dtype", DTYPES)
