"""The one import of MPI, after the settings that must be in the environment before it."""

import os

# Open MPI's UCX one-sided component prints warnings for shared windows, which need none of it.
os.environ.setdefault("OMPI_MCA_osc", "^ucx")

from mpi4py import MPI

__all__ = ["MPI"]
