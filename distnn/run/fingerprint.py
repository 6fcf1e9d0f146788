"""What the bits of a result depend on, besides the run's config: recorded with every run."""

import os
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np

from distnn.run.kernels import L2_SIZE, processor

IRRELEVANT_TO_BITS = frozenset({"python"})


def fingerprint(product: str = "numpy") -> dict[str, Any]:
    """The builds and the machine behind the numbers, as plain values; some 3 ms.

    ``product`` (what multiplies matrices, where it is not numpy and its BLAS),
    ``numpy``, ``simd`` (what numpy's own loops use), ``blas`` and ``blas_version``,
    ``blas_kernel`` (chosen by the CPU's type), ``blas_l2_size`` (where the environment sets it),
    ``blas_threads``, ``cpu``, ``distnn``, ``python``.
    """
    import distnn

    blas = _blas()
    return {
        "product": product,
        "numpy": np.__version__,
        "simd": _simd(),
        "blas": blas.get("internal_api"),
        "blas_version": blas.get("version"),
        "blas_kernel": blas.get("architecture"),
        "blas_l2_size": os.environ.get(L2_SIZE),
        "blas_threads": blas.get("num_threads"),
        "cpu": processor("model name") or platform.processor() or platform.machine(),
        "distnn": getattr(distnn, "__version__", None),
        "python": platform.python_version(),
    }


def differences(here: Mapping[str, Any], recorded: Mapping[str, Any]) -> list[str]:
    """What differs and may change bits: ``numpy 2.4.6 here, 2.3.0 recorded``."""
    return [
        f"{name} {here.get(name)} here, {recorded.get(name)} recorded"
        for name in dict.fromkeys((*here, *recorded))
        if name not in IRRELEVANT_TO_BITS and here.get(name) != recorded.get(name)
    ]


def _blas() -> dict[str, Any]:
    import threadpoolctl

    found = [one for one in threadpoolctl.threadpool_info() if one.get("user_api") == "blas"]
    # numpy's wheels bring a library of their own; another package may have loaded a second
    numpys = [one for one in found if "numpy" in str(one.get("filepath"))]
    return (numpys or found or [{}])[0]


def _simd() -> str:
    config: Any = np.show_config(mode="dicts")
    extensions = config.get("SIMD Extensions", {})
    return " ".join((*extensions.get("baseline", ()), *extensions.get("found", ())))
