"""One BLAS thread per rank: ranks are the parallelism, and N ranks x M threads fight for cores."""

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


def asked_for() -> bool:
    """Whether the user has chosen a number of threads."""
    return any(os.environ.get(name) for name in VARIABLES)


def default_to_one() -> None:
    """Before numpy is imported: one thread, unless the user chose; none are even started."""
    if not asked_for():
        for name in VARIABLES:
            os.environ[name] = "1"


def one_thread_per_rank(product: str = "numpy") -> AbstractContextManager[object]:
    """With numpy imported already: one thread inside the context, unless the user chose.

    Of every BLAS, and of OpenMP, which oneDNN runs its loops with.

    Args:
        product: what multiplies matrices, see `products.in_use`.
    """
    if asked_for():
        return nullcontext()
    return _libraries(product, len(sys.modules)).limit(limits=1)


@lru_cache(1)
def _libraries(product: str, modules: int) -> Any:
    """What runs threads: looked for again, for 2 ms, where more may have been loaded since."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
