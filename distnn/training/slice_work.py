"""A rank's slices of a batch, put together to stacks that go through a pass as one.

Where each gradient goes and what is added to what is the exchange's to say, in `tasks`; the bits do
not depend on which slices are in a stack.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from distnn.nn import products
from distnn.nn.backprop import BackwardPass, Factors, Share, SlicePass
from distnn.nn.layout import Array
from distnn.nn.network import Network
from distnn.nn.products import Product
from distnn.nn.stacks import of_stacks
from distnn.parallel.reduction import tree
from distnn.parallel.reduction.exchange import Exchange
from distnn.parallel.reduction.partition import slice_rows
from distnn.parallel.reduction.wire import Wire

STACK = 8
"""Slices that go through a pass together: they need the memory of so many slices' activations."""

TOGETHER = 1 << 20
"""Bytes of their gradients up to which slices have them in one array, which a core's cache holds:
one product makes all of a layer, and one addition all sums of a level of the tree."""

Observer = Callable[[Product, int, int], Product]


class Stack(NamedTuple):
    """Slices of equal length, as one pass takes them.

    Attributes:
        slices: the number of the slice, or those of all.
        items: where in the batch its rows are.
        A0, T: the pass's input and target buffers.
        rows: the same buffers as matrices, to gather into.
        is_first: of its step.
    """

    run: SlicePass
    slices: int | NDArray[np.intp]
    items: slice | NDArray[np.intp]
    A0: Array
    T: Array
    rows: tuple[Array, Array]
    is_first: bool


class Work(NamedTuple):
    """Some of the slices, and the backward pass that adds up their gradients."""

    stacks: list[Stack]
    backward: BackwardPass
    is_last: bool


class Profiler(Protocol):
    """What measures a step's phases, see `diagnostics.step_profile`."""

    def enter(self, phase: str) -> None:
        """This rank is in a phase from now on."""

    def timed(self, function: Product, phase: str) -> Product:
        """A function of three matrices as a phase of its own."""


class SliceWork:
    """The passes over this rank's slices, made once for each size of a batch.

    Args:
        items: of the largest batch.
        observe: gives, for the product that makes the gradients of `count` of this rank's slices by
            turns, from `first` on, one that is used instead and may look at them.
    """

    def __init__(
        self, network: Network, exchange: Exchange, items: int, observe: Observer | None = None
    ) -> None:
        self._observe = observe
        self._network, self._exchange = network, exchange
        self._slices = exchange.layout.slices
        longest, count = -(-items // self._slices), min(STACK, len(exchange.tasks))
        self._whole = SlicePass(network, longest * count)
        self._beside: dict[int, SlicePass] = {}  # by the rows in front of theirs
        self._gradients = [network.views(vector) for vector in exchange.vectors]
        self._work: dict[int, list[Work]] = {}
        self._profiler: Profiler | None = None
        self._wire = exchange.layout.make_wire()

    def for_batch(self, items: int) -> list[Work]:
        """The work on a batch of so many items, in order."""
        found = self._work.get(items)
        if found is None:
            found = self._work[items] = self._prepare(items)
            self.attach(self._profiler)
        return found

    def attach(self, profiler: Profiler | None) -> None:
        """Have products and sums measured from now on; None: no longer."""
        self._profiler = profiler
        arithmetic = products.arithmetic(self._network.precision)
        product_of_slices = arithmetic.product
        add: Product = self._wire.add
        product = of_stacks(arithmetic)
        if profiler is not None:
            product = profiler.timed(product, "product")
            product_of_slices = profiler.timed(product_of_slices, "product")
            add = profiler.timed(add, "sum")
        if self._exchange.layout.wire != "float32":
            product_of_slices = _rounded(product_of_slices, self._wire)
        for run in (self._whole, *self._beside.values()):
            run.product = product
        for work in self._work.values():
            for number, part in enumerate(work):
                first = number * STACK
                count = min(STACK, len(self._exchange.tasks) - first)
                part.backward.product = product if part.backward.takes_stacks else product_of_slices
                part.backward.add = add
                if self._observe is not None:
                    part.backward.product = self._observe(product_of_slices, first, count)

    def _prepare(self, items: int) -> list[Work]:
        tasks = self._exchange.tasks
        parts = [tasks[first : first + STACK] for first in range(0, len(tasks), STACK)]
        return [self._put_together(part, items) for part in parts]

    def _put_together(self, tasks: Sequence[tree.SliceTask], items: int) -> Work:
        """The work on some slices: those of equal length in one stack; there are two lengths."""

        def length(task: tree.SliceTask) -> int:
            lo, hi = slice_rows(task.slice, self._slices, items)
            return hi - lo

        stacks: list[Stack] = []
        factors: dict[int, list[Factors]] = {}  # by slice
        for b, equal in groupby(sorted(tasks, key=length), length):
            numbers = [task.slice for task in equal]
            run = self._pass_beside(len(stacks[0].rows[0])) if stacks else self._whole
            is_first = not stacks and tasks[0] is self._exchange.tasks[0]
            stack = self._stack(run, numbers, b, items, is_first)
            stacks.append(stack)
            factors |= zip(numbers, _of_slices(stack), strict=True)
        shares = [self._share(task, factors[task.slice]) for task in tasks]
        if len(stacks) == 1 and self._form_one_sum(tasks):
            shares = [self._share_of_all(tasks, stacks[0])]
        is_last = tasks[-1] is self._exchange.tasks[-1]
        return Work(stacks, BackwardPass([stack.run for stack in stacks], shares), is_last)

    def _pass_beside(self, rows: int) -> SlicePass:
        if rows not in self._beside:
            self._beside[rows] = self._whole.beside(rows)
        return self._beside[rows]

    def _stack(
        self, run: SlicePass, numbers: list[int], b: int, items: int, is_first: bool
    ) -> Stack:
        k = len(numbers)
        shape = (b,) if k == 1 else (k, b)
        A0, T = run.input(*shape), run.target(*shape)
        rows = A0.reshape(k * b, A0.shape[-1]), T.reshape(k * b, T.shape[-1])
        bounds = [slice_rows(number, self._slices, items) for number in numbers]
        where: slice | NDArray[np.intp] = slice(bounds[0][0], bounds[-1][1])
        if bounds[-1][1] - bounds[0][0] != k * b:  # slices of another length lie between
            where = np.concatenate([np.arange(*ends) for ends in bounds])
        slices = numbers[0] if k == 1 else np.array(numbers, np.intp)
        return Stack(run, slices, where, A0, T, rows, is_first)

    def _share(self, task: tree.SliceTask, factors: "list[Factors]") -> Share:
        """One slice's gradient, and the sums that follow from it."""
        of = self._gradients
        sums = [(of[left], of[right], of[left]) for left, right in task.additions]
        return Share(factors, of[task.vector], sums)

    def _form_one_sum(self, tasks: Sequence[tree.SliceTask]) -> bool:
        """Whether some slices are added up level by level, to one vector, in little memory."""
        k, network, is_exact = len(tasks), self._network, self._exchange.layout.wire == "float32"
        if k & (k - 1) or k == 1 or self._observe is not None or not is_exact:
            return False
        alone = [task._replace(slice=task.slice - tasks[0].slice) for task in tasks]
        is_small = k * network.size * network.dtype.itemsize <= TOGETHER
        return is_small and alone == tree.slice_tasks(0, k, k)[0]

    def _share_of_all(self, tasks: Sequence[tree.SliceTask], stack: Stack) -> Share:
        """The gradients of k = 2^j slices, and their sum: T(0, k) halves what is left j times."""
        of, k = self._network.views, len(tasks)
        vectors = np.zeros((k, self._network.size), self._network.dtype)
        sums = []
        for apart in (1 << level for level in range(k.bit_length() - 2)):
            left, right = vectors[:: 2 * apart], vectors[apart :: 2 * apart]
            sums.append((of(left), of(right), of(left)))
        sums.append((of(vectors[0]), of(vectors[k // 2]), self._gradients[tasks[0].vector]))
        return Share(stack.run.factors(stack.A0), of(vectors), sums)


def _rounded(product: Product, wire: Wire) -> Product:
    """Products that are the gradients of slices, as they are added up."""

    def multiply(X: Array, Y: Array, out: Array) -> None:
        product(X, Y, out)
        wire.round(out)

    return multiply


def _of_slices(stack: Stack) -> "list[list[Factors]]":
    """What the gradient of each slice of a stack is the product of."""
    factors = stack.run.factors(stack.A0)
    if stack.A0.ndim == 2:
        return [factors]
    return [[(At[k], D[k]) for At, D in factors] for k in range(len(stack.A0))]
