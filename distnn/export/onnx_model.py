"""A trained network as a model of ONNX: raw columns in, classes or targets out."""

from typing import Any

import numpy as np
import onnx

from distnn.errors import InputError
from distnn.export import facts
from distnn.export.columns import features
from distnn.export.graph import BFLOAT16, DOUBLE, FLOAT, INT64, STRING, Graph
from distnn.nn.activations import GELU_CUBIC, GELU_LINEAR, LEAK
from distnn.nn.products import BFLOAT16 as ROUNDED
from distnn.training.prediction import Trained

MOST_BYTES = (1 << 31) - (1 << 20)  # of weights: a message of protobuf holds 2 GiB


def onnx_model(trained: Trained) -> onnx.ModelProto:
    """The model, checked.

    Inputs are of the network's type, float or double, with NaN for a missing number; see
    `columns.features`. Outputs:

    - classification: ``label`` (rows,), names of classes or whole numbers, and ``probabilities``
      (rows, classes), which are ``scores`` where the outputs are neither softmax nor sigmoid;
    - regression: ``prediction`` (rows, targets) in the targets' own units, in double, as distnn
      undoes their scaling.

    Raises:
        InputError: the network is too large for a file of ONNX.
    """
    network = trained.network
    if network.size * network.dtype.itemsize > MOST_BYTES:
        what = f"{network.size} weights, and a file of ONNX holds 2 GiB"
        raise InputError(what, "network", "give --format safetensors")
    graph = Graph(DOUBLE if network.dtype == np.float64 else FLOAT)
    X = features(graph, trained.preparation, network.layers[0])
    if trained.scaling.shift.any():
        X = graph.node("Sub", X, graph.constant("shift", trained.scaling.shift.astype(graph.dtype)))
    if (trained.scaling.scale != 1).any():
        X = graph.node("Mul", X, graph.constant("scale", trained.scaling.scale.astype(graph.dtype)))
    A = _passed(graph, trained, X)
    if trained.is_classification:
        _decide(graph, trained, A)
    else:
        _undo(graph, trained, A)
    return graph.model("distnn", facts.explanation(trained), facts.texts(trained))


def _passed(graph: Graph, trained: Trained, A: str) -> str:
    """The network's outputs (rows, n_L)."""
    network = trained.network
    for l, (weight, bias) in enumerate(facts.layers(trained)):
        constants = {f"layers.{l}.weight": weight, f"layers.{l}.bias": bias}
        factors = [A, *(graph.constant(name, array) for name, array in constants.items())]
        if network.precision == ROUNDED:
            factors = [_rounded(graph, factor) for factor in factors]
        Z = graph.node("Gemm", *factors, transB=1)
        last = l + 2 == len(network.layers)
        A = _activated(graph, network.output if last else network.activation, Z)
    return A


def _rounded(graph: Graph, X: str) -> str:
    return graph.node("Cast", graph.node("Cast", X, to=BFLOAT16), to=FLOAT)


def _activated(graph: Graph, activation: str, Z: str) -> str:
    """h(Z), as `distnn.nn.activations` writes it: onnxruntime has no Elu and Softplus in double."""
    g = graph
    match activation:
        case "identity":
            return Z
        case "sigmoid" | "tanh" | "relu":
            return g.node(activation.capitalize(), Z)
        case "softmax":
            return g.node("Softmax", Z, axis=1)
        case "leaky-relu":
            return g.node("LeakyRelu", Z, alpha=LEAK)
        case "elu":
            left = g.node("Exp", g.node("Min", Z, g.number("zero", 0)))
            return g.node("Max", Z, g.node("Sub", left, g.number("one", 1)))
        case "softplus":
            small = g.node("Exp", g.node("Neg", g.node("Abs", Z)))
            log = g.node("Log", g.node("Add", small, g.number("one", 1)))
            return g.node("Add", g.node("Relu", Z), log)
        case "gelu":
            cubic = g.node("Mul", g.node("Mul", Z, Z), g.number("gelu.cubic", GELU_CUBIC))
            sum_ = g.node("Add", cubic, g.number("gelu.linear", GELU_LINEAR))
            return g.node("Mul", Z, g.node("Sigmoid", g.node("Mul", sum_, Z)))
    raise NotImplementedError(activation)


def _decide(graph: Graph, trained: Trained, A: str) -> None:
    """Outputs ``label`` and ``probabilities``."""
    if trained.network.layers[-1] == 1:
        half = graph.number("half", 0.5)
        index = graph.node("Cast", graph.node("GreaterOrEqual", A, half), to=INT64)
        index = graph.node("Squeeze", index, graph.constant("axes", np.array([1])))
        A = graph.node("Concat", graph.node("Sub", graph.number("one", 1), A), A, axis=1)
    else:
        index = graph.node("ArgMax", A, axis=1, keepdims=0)
    labels = facts.labels(trained)
    kind = STRING if labels.dtype.kind == "U" else INT64
    label = graph.node("Gather", graph.constant("classes", labels), index)
    graph.output("label", label, kind, None)
    name = "probabilities" if trained.network.output in ("softmax", "sigmoid") else "scores"
    graph.output(name, A, graph.kind, len(labels))


def _undo(graph: Graph, trained: Trained, A: str) -> None:
    """Output ``prediction``, in the targets' own units."""
    if graph.kind != DOUBLE:
        A = graph.node("Cast", A, to=DOUBLE)
    scaling: Any = trained.units.scaling
    if scaling is not None:
        A = graph.node("Div", A, graph.constant("target_scale", scaling.scale))
        A = graph.node("Add", A, graph.constant("target_shift", scaling.shift))
    if trained.units.transform is not None:
        A = graph.node("Exp", A)
    graph.output("prediction", A, DOUBLE, trained.network.layers[-1])
