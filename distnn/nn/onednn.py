"""oneDNN by its C interface: products of float32 and bfloat16 matrices, and rounding to bfloat16.

oneDNN makes a primitive, compiled for the shapes and layouts of its matrices, and runs it on memory
objects. Both are made once for the arrays that a product is called with and kept while those arrays
live: a call then costs about as much as one of numpy's.

Source: oneDNN developer guide, "Matrix Multiplication" and "Reorder" primitives; header
``oneapi/dnnl/dnnl.h`` of version 3.
"""

import ctypes
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distnn.errors import InputError
from distnn.nn.layout import Array

PACKAGES = ("onednn-cpu-gomp", "onednn-cpu-iomp", "onednn-cpu-tbb")
FILES = ("libdnnl.so.3", "libdnnl.so", "libdnnl.3.dylib")
MAJOR = 3  # of the versions whose interface this is

MOST_DIMENSIONS = 12  # of dnnl_dims_t
CPU, DEFAULT_STREAM = 1, 1
SOURCE, WEIGHTS, DESTINATION = 1, 33, 17  # DNNL_ARG_...; a reorder's are FROM = 1 and TO = 17
TYPES = {np.dtype(np.float32): 3, np.dtype(np.uint16): 2}  # bfloat16 lies in numpy's uint16
INSTRUCTION_SETS = {  # dnnl_cpu_isa_t
    0x1: "sse41", 0x3: "avx", 0x7: "avx2", 0xF: "avx2_vnni", 0x1F: "avx2_vnni_2",
    0x27: "avx512_core", 0x67: "avx512_core_vnni", 0xE7: "avx512_core_bf16",
    0x1EF: "avx512_core_fp16", 0xFEF: "avx512_core_amx", 0x1FEF: "avx512_core_amx_fp16",
}  # fmt: skip
AVX512, AVX512_BF16, AMX = 0x20, 0x80, 0x200  # bits of these
MOST_PRIMITIVES = 512  # kept at a time; each shape needs one of its own

Dims = ctypes.c_int64 * MOST_DIMENSIONS
Address = ctypes.c_void_p


class _Argument(ctypes.Structure):
    """dnnl_exec_arg_t."""

    _fields_ = (("arg", ctypes.c_int), ("memory", Address))


class _Version(ctypes.Structure):
    """dnnl_version_t."""

    _fields_ = (
        ("major", ctypes.c_int),
        ("minor", ctypes.c_int),
        ("patch", ctypes.c_int),
        ("hash", ctypes.c_char_p),
        ("cpu_runtime", ctypes.c_uint),
        ("gpu_runtime", ctypes.c_uint),
    )


class _Layout(NamedTuple):
    """What a primitive is compiled for: one of these for each of its matrices."""

    type: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements


class _Compiled(NamedTuple):
    """A primitive, and the descriptors of the memory that it takes."""

    primitive: Address
    descriptors: Sequence[Address]


class _Call(NamedTuple):
    """A primitive, and the memory of the arrays that it works on, once for each of a stack."""

    primitive: Address
    number: int  # of its arguments
    arguments: Sequence[Any]
    memories: Sequence[Address]
    watched: Sequence["weakref.ref[Array]"]


class OneDnn:
    """One engine and one stream, on which everything is done before a call returns.

    Products are made by as many threads as OpenMP has for the calling thread, one unless the user
    chose otherwise: see `distnn.blas_threads`.

    Attributes:
        name: version and instruction set, as ``oneDNN 3.2.0 avx512_core_bf16``. The environment
            variable ONEDNN_MAX_CPU_ISA limits the latter.
        has_avx512, has_amx: whether the instruction set includes these.
        multiplies_bfloat16: whether it has instructions for bfloat16 numbers; without them, oneDNN
            converts every factor first.

    Raises:
        InputError: the library is not installed, or its version is not 3.
    """

    def __init__(self) -> None:
        self._library = library = load_library()
        found = library.dnnl_version().contents
        isa = library.dnnl_get_effective_cpu_isa()
        instructions = INSTRUCTION_SETS.get(isa, hex(isa))
        self.name = f"oneDNN {found.major}.{found.minor}.{found.patch} {instructions}"
        self.has_avx512, self.has_amx = bool(isa & AVX512), bool(isa & AMX)
        self.multiplies_bfloat16 = bool(isa & AVX512_BF16)
        self._engine, self._stream = Address(), Address()
        self._check(library.dnnl_engine_create(ctypes.byref(self._engine), CPU, 0))
        self._check(
            library.dnnl_stream_create(ctypes.byref(self._stream), self._engine, DEFAULT_STREAM)
        )
        self._compiled: dict[tuple[_Layout, ...], _Compiled] = {}
        self._calls: dict[tuple[int, ...], _Call] = {}

    def product(self, X: Array, Y: Array, out: Array) -> None:
        """out = X @ Y for float32 (m, k), (k, n), (m, n), or bfloat16 X and Y and float32 out.

        X and Y may be transposed, and all may be part of a larger matrix, as long as the elements
        follow one another along one of their axes. A stack (s, m, k) is multiplied by a stack or by
        a single matrix, in the bits of s products.
        """
        call = self._calls.get((id(X), id(Y), id(out)))
        if call is None:
            if not X.size or not Y.size:
                out[...] = 0
                return
            arrays = (X, Y, out)
            parts = [arrays]
            if out.ndim > 2:
                parts = [(X[i], Y[i] if Y.ndim > 2 else Y, out[i]) for i in range(len(out))]
            call = self._prepare(self._matmul, (SOURCE, WEIGHTS, DESTINATION), arrays, parts)
        self._run(call)

    def round(self, X: Array, out: Array) -> None:
        """Round float32 X to bfloat16 in ``out`` (uint16), to nearest, ties to even.

        NaN stays NaN; numbers below 2**-126, float32's least normal one, become 0.
        """
        call = self._calls.get((id(X), id(out)))
        if call is None:
            if not X.size:
                return
            call = self._prepare(self._reorder, (SOURCE, DESTINATION), (X, out), [(X, out)])
        self._run(call)

    def _run(self, call: _Call) -> None:
        execute, stream = self._library.dnnl_primitive_execute, self._stream
        for arguments in call.arguments:
            status = execute(call.primitive, stream, call.number, arguments)
            if status:
                self._check(status)

    # Made once

    def _prepare(
        self,
        make: Callable[[Sequence[Address]], Address],
        names: Sequence[int],
        arrays: Sequence[Array],
        parts: Sequence[Sequence[Array]],
    ) -> _Call:
        """The call for these arrays, whose parts are alike; kept until one of them is gone."""
        layouts = tuple(map(_layout, parts[0]))
        compiled = self._compiled.get(layouts)
        if compiled is None:
            if len(self._compiled) >= MOST_PRIMITIVES:
                self._forget_all()
            described = [self._descriptor(one) for one in layouts]
            compiled = self._compiled[layouts] = _Compiled(make(described), described)
        primitive, descriptors = compiled
        memories, arguments = [], []
        for part in parts:
            of_part = [
                self._memory(descriptor, array)
                for descriptor, array in zip(descriptors, part, strict=True)
            ]
            memories += of_part
            pairs = zip(names, of_part, strict=True)
            arguments.append((_Argument * len(part))(*(_Argument(*pair) for pair in pairs)))
        key = tuple(map(id, arrays))

        def forget(_gone: object) -> None:
            self._forget(key)

        watched = [weakref.ref(array, forget) for array in arrays]
        call = _Call(primitive, len(arrays), arguments, memories, watched)
        self._calls[key] = call
        return call

    def _forget(self, key: tuple[int, ...]) -> None:
        """An array is gone: another one may get its ``id``."""
        call = self._calls.pop(key, None)
        for memory in call.memories if call else ():
            self._check(self._library.dnnl_memory_destroy(memory))

    def _forget_all(self) -> None:
        for key in list(self._calls):
            self._forget(key)
        for primitive, descriptors in self._compiled.values():
            self._check(self._library.dnnl_primitive_destroy(primitive))
            for descriptor in descriptors:
                self._check(self._library.dnnl_memory_desc_destroy(descriptor))
        self._compiled.clear()

    def _descriptor(self, layout: _Layout) -> Address:
        descriptor = Address()
        self._check(
            self._library.dnnl_memory_desc_create_with_strides(
                ctypes.byref(descriptor),
                len(layout.shape),
                Dims(*layout.shape),
                layout.type,
                Dims(*layout.strides),
            )
        )
        return descriptor

    def _memory(self, descriptor: Address, array: Array) -> Address:
        memory = Address()
        self._check(
            self._library.dnnl_memory_create(
                ctypes.byref(memory), descriptor, self._engine, array.ctypes.data
            )
        )
        return memory

    def _matmul(self, descriptors: Sequence[Address]) -> Address:
        X, Y, out = descriptors
        wanted = Address()
        self._check(
            self._library.dnnl_matmul_primitive_desc_create(
                ctypes.byref(wanted), self._engine, X, Y, None, out, None
            )
        )
        return self._primitive(wanted)

    def _reorder(self, descriptors: Sequence[Address]) -> Address:
        X, out = descriptors
        wanted = Address()
        self._check(
            self._library.dnnl_reorder_primitive_desc_create(
                ctypes.byref(wanted), X, self._engine, out, self._engine, None
            )
        )
        return self._primitive(wanted)

    def _primitive(self, wanted: Address) -> Address:
        primitive = Address()
        self._check(self._library.dnnl_primitive_create(ctypes.byref(primitive), wanted))
        self._check(self._library.dnnl_primitive_desc_destroy(wanted))
        return primitive

    @staticmethod
    def _check(status: int) -> None:
        if status:
            raise RuntimeError(f"oneDNN returned status {status}")  # dnnl_status_t


@cache
def shared() -> OneDnn:
    """The one of this process: compiled primitives serve whatever is trained in it.

    Raises:
        InputError: see `OneDnn`.
    """
    return OneDnn()


def find_library() -> Path | None:
    """The library's file where pip puts it, beside this Python or the user's packages."""
    import site

    bases = (sys.prefix, site.getuserbase()) if site.ENABLE_USER_SITE else (sys.prefix,)
    places = (Path(base) / "lib" / name for base in bases for name in FILES)
    return next((file for file in places if file.exists()), None)


def load_library() -> Any:
    """libdnnl: what `find_library` finds, or else one of ``PACKAGES``, or else the system's.

    Raises:
        InputError: it is not there, or its version is not 3.
    """
    problem = "oneDNN is not installed"
    for file in _candidates():
        try:
            library = ctypes.CDLL(str(file))
        except OSError as error:
            if isinstance(file, Path):  # it is there, but not what it needs
                problem = f"oneDNN cannot be loaded: {error}"
            continue
        _declare(library)
        major = library.dnnl_version().contents.major
        if major == MAJOR:
            return library
        problem = f"oneDNN {major} found, {MAJOR} is needed"
    raise InputError(problem, "--blas", "pip install 'distnn[onednn]', or use numpy")


def _candidates() -> Iterator[Path | str]:
    found = find_library()
    if found is not None:
        yield found
    from importlib import metadata  # some 30 ms

    for name in PACKAGES:
        try:
            files = metadata.distribution(name).files or []
        except metadata.PackageNotFoundError:
            continue
        yield from (Path(str(file.locate())) for file in files if file.name == FILES[0])
    yield from FILES


def _layout(array: Array) -> _Layout:
    """How an array lies in memory.

    An axis of one element may have any stride in numpy; oneDNN wants one that fits the others, or
    it takes a slow general way.
    """
    strides = [step // array.itemsize for step in array.strides]
    if array.ndim == 2:
        rows, columns = array.shape
        if columns == 1 and rows > 1 and strides[0] == 1:
            strides[1] = rows  # a column in one piece: transposed
        elif columns == 1:
            strides[1] = 1
        if rows == 1:
            strides[0] = columns if strides[1] == 1 else 1
    return _Layout(TYPES[array.dtype], array.shape, tuple(strides))


def _declare(library: Any) -> None:
    """Types of the functions whose arguments ctypes would not pass as they are."""
    library.dnnl_version.restype = ctypes.POINTER(_Version)
    number, pointer = ctypes.c_int, Address
    for name, types in {
        "engine_create": (pointer, number, ctypes.c_size_t),
        "stream_create": (pointer, pointer, ctypes.c_uint),
        "memory_desc_create_with_strides": (pointer, number, Dims, number, Dims),
        "memory_desc_destroy": (pointer,),
        "memory_create": (pointer, pointer, pointer, pointer),
        "memory_destroy": (pointer,),
        "matmul_primitive_desc_create": (pointer,) * 7,
        "reorder_primitive_desc_create": (pointer,) * 6,
        "primitive_desc_destroy": (pointer,),
        "primitive_create": (pointer, pointer),
        "primitive_destroy": (pointer,),
        "primitive_execute": (pointer, pointer, number, pointer),
    }.items():
        getattr(library, f"dnnl_{name}").argtypes = types
