"""A graph of ONNX while it is built: nodes and constants under names of their own."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

# What ONNX 1.12 of 2022 has: onnxruntime opens it from 1.12 on, by its own table of versions.
OPSET, OPSET_ML, IR_VERSION = 17, 3, 8
ML = "ai.onnx.ml"  # the domain of LabelEncoder

FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE
BFLOAT16, INT64, STRING = TensorProto.BFLOAT16, TensorProto.INT64, TensorProto.STRING


class Graph:
    """Nodes, constants, inputs and outputs of a model.

    A value is known by its name; methods that add one give back the name it got. Names of columns
    come from a table and may be anything, so a name that is taken gets a number behind it.

    Args:
        kind: FLOAT or DOUBLE, in which the network calculates.
    """

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self._names: set[str] = set()
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    @property
    def dtype(self) -> "np.dtype[Any]":
        """Of the network's numbers."""
        return np.dtype(np.float64 if self.kind == DOUBLE else np.float32)

    def input(self, name: str, kind: int, columns: int) -> str:
        """An input (rows, columns)."""
        name = self._free(name)
        self._inputs.append(helper.make_tensor_value_info(name, kind, ["rows", columns]))
        return name

    def output(self, name: str, value: str, kind: int, columns: int | None) -> None:
        """A value as an output (rows, columns), or (rows,) where columns is None."""
        name = self._free(name)
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        shape: list[str | int | None] = ["rows"] if columns is None else ["rows", columns]
        self._outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """An array that is stored in the model: numbers, or text as Python's strings."""
        name = self._free(name)
        if array.dtype.kind in "OU":
            texts = [text.encode() for text in array.reshape(-1).tolist()]
            tensor = helper.make_tensor(name, STRING, array.shape, texts)
        else:
            tensor = numpy_helper.from_array(np.ascontiguousarray(array), name)
        self._constants.append(tensor)
        return name

    def number(self, name: str, value: float) -> str:
        """One number of the network's type."""
        return self.constant(name, np.array(value, self.dtype))

    def node(self, kind: str, *values: str, domain: str = "", **attributes: Any) -> str:
        """The first output of an operator on these values."""
        name = self._free(kind.lower())
        node = helper.make_node(kind, list(values), [name], domain=domain, **attributes)
        self._nodes.append(node)
        return name

    def model(self, name: str, explanation: str, facts: dict[str, str]) -> onnx.ModelProto:
        """The whole, checked by ONNX's own checker.

        Args:
            facts: become the model's metadata.
        """
        graph = helper.make_graph(
            self._nodes, name, self._inputs, self._outputs, self._constants, doc_string=explanation
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ML, OPSET_ML)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="distnn",
            producer_version=facts["distnn"],
        )  # fmt: skip
        helper.set_model_props(model, facts)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _free(self, name: str) -> str:
        free, number = name, 1
        while free in self._names:
            number += 1
            free = f"{name}_{number}"
        self._names.add(free)
        return free
