"""Whether the environment makes numpy's OpenBLAS run older kernels than the processor has.

Some machines set these variables for the sake of older libraries. A newer one then multiplies
matrices at half its speed, and nothing else shows it.
"""

import os
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

CORETYPE, L2_SIZE = VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
AVX512 = frozenset({"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"})
AVX2 = frozenset({"avx2", "fma"})
GENERATIONS = (  # what a processor must have, and the kernels that OpenBLAS picks for it
    ("AVX-512", AVX512, {"skylakex", "cooperlake", "sapphirerapids"}),
    ("AVX2", AVX2, {"haswell", "zen"}),
)
"""Newest first."""


def kernels_message(facts: Mapping[str, Any]) -> str:
    """One line if the environment replaces what OpenBLAS would find by itself, else nothing.

    Args:
        facts: the `fingerprint` of this process.
    """
    is_openblas = facts["product"] == "numpy" and facts["blas"] == "openblas"
    if not is_openblas or not any(os.environ.get(name) for name in VARIABLES):
        return ""
    return replaced(str(facts["blas_kernel"]), os.environ, set(processor("flags").split()))


def replaced(kernel: str, environment: Mapping[str, str], flags: Set[str]) -> str:
    """One line if a variable has led to kernels older than `flags` allow, or to a cache size.

    Args:
        kernel: the one in use, as threadpoolctl names it.
        flags: of the processor.
    """
    found = [f"{name}={environment[name]}" for name in VARIABLES if environment.get(name)]
    newest = next((one for one in GENERATIONS if one[1] <= flags), None)
    is_older = newest is not None and kernel.lower() not in newest[2]
    if newest is not None and is_older and environment.get(CORETYPE):
        what = f"makes OpenBLAS run its {kernel} kernels on a processor with {newest[0]}"
    elif environment.get(L2_SIZE):
        what, found = "replaces the cache size that OpenBLAS finds", found[-1:]
    else:
        return ""
    names = " ".join(name for name in VARIABLES if environment.get(name))
    return f"{' and '.join(found)} {what}: products may take twice as long; unset {names}"


def processor(field: str) -> str:
    """A field of the first processor in /proc/cpuinfo; nothing where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return ""
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in pairs if name.strip() == field), "")
