"""The one import of MPI, after the settings that must be in the environment before it.

One process by itself needs none: where mpi4py is missing, or finds no MPI library, `serial` stands
in for it. A process that a launcher started as one of several does need it.
"""

import os
import sys
from typing import TYPE_CHECKING

from distnn.errors import InputError
from distnn.parallel.comm.launcher import check_library, check_size, launched_ranks

# Open MPI's UCX one-sided component prints warnings for shared windows, which need none of it.
os.environ.setdefault("OMPI_MCA_osc", "^ucx")


def _missing(error: Exception) -> InputError:
    if isinstance(error, ModuleNotFoundError):
        what, remedy = "has no mpi4py", "install it there, with pip install mpi4py"
    else:
        what = f"has an mpi4py that finds no MPI library: {error}"
        remedy = "pip install 'distnn[mpich]' there, or load the module of an MPI"
    return InputError(f"{sys.executable} {what}", "MPI", remedy)


if TYPE_CHECKING:
    from mpi4py import MPI
else:
    try:
        import mpi4py

        if "mpi4py.MPI" not in sys.modules:
            mpi4py.rc(initialize=False, finalize=True)
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        if launched_ranks()[0] > 1:
            raise _missing(error) from None
        from distnn.parallel.comm import serial as MPI

if not MPI.Is_initialized():
    check_library(MPI.Get_library_version())
    MPI.Init_thread(MPI.THREAD_MULTIPLE)
check_size(MPI.COMM_WORLD.size)

__all__ = ["MPI"]
