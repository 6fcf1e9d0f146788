"""The one import of MPI, after the settings that must be in the environment before it."""

import os
import sys

from distnn.errors import InputError
from distnn.parallel.comm.launcher import check_library, check_size

# Open MPI's UCX one-sided component prints warnings for shared windows, which need none of it.
os.environ.setdefault("OMPI_MCA_osc", "^ucx")

try:
    import mpi4py
except ModuleNotFoundError as error:
    if error.name != "mpi4py":
        raise
    what = f"{sys.executable} has no mpi4py"
    raise InputError(what, "MPI", "install it there, with pip install mpi4py") from None
if "mpi4py.MPI" not in sys.modules:
    mpi4py.rc(initialize=False, finalize=True)
from mpi4py import MPI

if not MPI.Is_initialized():
    check_library(MPI.Get_library_version())
    MPI.Init_thread(MPI.THREAD_MULTIPLE)
check_size(MPI.COMM_WORLD.size)

__all__ = ["MPI"]
