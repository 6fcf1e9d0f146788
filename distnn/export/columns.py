"""The preparation of a table's columns as nodes of ONNX: as `distnn.data.preparation` has it."""

from collections.abc import Sequence
from itertools import product

import numpy as np

from distnn.data.categories import canonical, is_number
from distnn.data.preparation import NUMBER, Column, Preparation
from distnn.data.table import MISSING
from distnn.export.graph import DOUBLE, ML, STRING, Graph


def features(graph: Graph, preparation: Preparation | None, width: int) -> str:
    """The inputs of a model, and its features (rows, width) from them, not scaled.

    Numbers alone, from a table or not, are one matrix "X" in the order of training; with
    categories among them, every column is an input (rows, 1) of its own name.
    """
    if preparation is None:
        return graph.input("X", graph.kind, width)
    columns = preparation.columns
    if all(column.kind == NUMBER for column in columns):
        return _numbers(graph, graph.input("X", graph.kind, len(columns)), columns)
    inputs = [graph.input(_title(preparation, c), _kind(graph, c), 1) for c in columns]
    parts, source = [], []  # and which feature stands where in them
    start = np.cumsum([0, *(column.width for column in columns)]).tolist()
    numbers = [k for k, column in enumerate(columns) if column.kind == NUMBER]
    if numbers:
        joined = _join(graph, [inputs[k] for k in numbers])
        parts.append(_numbers(graph, joined, [columns[k] for k in numbers]))
        source += [start[k] + j for k in numbers for j in range(columns[k].width)]
    for k, column in enumerate(columns):
        if column.kind != NUMBER:
            parts.append(_one_hot(graph, inputs[k], column))
            source += range(start[k], start[k + 1])
    return _in_order(graph, _join(graph, parts), source)


def is_numeric(column: Column) -> bool:
    """Whether all categories are numbers: then they are given as such, 7 and not "7"."""
    return all(
        is_number(text) and bool(np.isfinite(float(text))) and canonical(text) == text
        for text in column.categories
    )


def _title(preparation: Preparation, column: Column) -> str:
    return column.name if preparation.named else f"column_{column.name}"


def _kind(graph: Graph, column: Column) -> int:
    if column.kind == NUMBER:
        return graph.kind
    return DOUBLE if is_numeric(column) else STRING  # float32 would mix up whole numbers from 2^24


def _numbers(graph: Graph, X: str, columns: Sequence[Column]) -> str:
    """Columns of numbers (rows, columns) with gaps filled, each followed by where they were."""
    if all(column.fill is None for column in columns):
        return X
    fills = np.array([[np.nan if c.fill is None else c.fill for c in columns]], graph.dtype)
    missing = graph.node("IsNaN", X)
    filled = graph.node("Where", missing, graph.constant("preparation.fill", fills), X)
    gaps = [k for k, column in enumerate(columns) if column.gaps]
    if not gaps:
        return filled
    chosen = missing
    if len(gaps) < len(columns):
        indices = graph.constant("preparation.gaps", np.array(gaps))
        chosen = graph.node("Gather", missing, indices, axis=1)
    start = np.cumsum([0, *(column.width for column in columns)]).tolist()
    source = [start[k] for k in range(len(columns))] + [start[k] + 1 for k in gaps]
    both = _join(graph, [filled, graph.node("Cast", chosen, to=graph.kind)])
    return _in_order(graph, both, source)


def _one_hot(graph: Graph, values: str, column: Column) -> str:
    """A column of categories (rows, 1) as (rows, width): a category not known has none."""
    if is_numeric(column):
        known = np.array([[float(text) for text in column.categories]])
        is_it = graph.node("Equal", values, graph.constant(f"{column.name}.categories", known))
        parts = [graph.node("Cast", is_it, to=graph.kind)]
        if column.gaps:
            parts.append(graph.node("Cast", graph.node("IsNaN", values), to=graph.kind))
        return _join(graph, parts)
    codes = {text: k for k, text in enumerate(column.categories)}
    if column.gaps:
        codes = {**dict.fromkeys(_missing_texts(), len(codes)), **codes}
    code = graph.node(
        "LabelEncoder", values, domain=ML, default_int64=-1,
        keys_strings=list(codes), values_int64s=list(codes.values()),
    )  # fmt: skip
    numbers = graph.constant(f"{column.name}.codes", np.arange(column.width)[None])
    return graph.node("Cast", graph.node("Equal", code, numbers), to=graph.kind)


def _missing_texts() -> list[str]:
    """What stands for no value, in any case of letters."""
    spelt = (product(*((c.lower(), c.upper()) for c in text)) for text in sorted(MISSING))
    return list(dict.fromkeys("".join(letters) for texts in spelt for letters in texts))


def _join(graph: Graph, parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else graph.node("Concat", *parts, axis=1)


def _in_order(graph: Graph, X: str, source: Sequence[int]) -> str:
    """Column j of X moved to place source[j]."""
    places = np.argsort(source)
    if (places == np.arange(len(places))).all():
        return X
    return graph.node("Gather", X, graph.constant("preparation.order", places), axis=1)
