"""One BLAS thread per rank: ranks are the parallelism, and N ranks x M threads fight for cores."""

import os
from contextlib import AbstractContextManager, nullcontext

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


def asked_for() -> bool:
    """Whether the user has chosen a number of threads."""
    return any(os.environ.get(name) for name in VARIABLES)


def default_to_one() -> None:
    """Before numpy is imported: one thread, unless the user chose; none are even started."""
    if not asked_for():
        for name in VARIABLES:
            os.environ[name] = "1"


def one_thread_per_rank() -> AbstractContextManager[object]:
    """With numpy imported already: one thread inside the context, unless the user chose."""
    if asked_for():
        return nullcontext()
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)  # of every BLAS, and of OpenMP, which oneDNN runs its loops with
