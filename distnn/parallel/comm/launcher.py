"""What the launcher says in the environment, compared with the MPI that Python is linked with.

Each MPI's mpirun starts programs of its own MPI. One of another MPI does not start, or finds itself
alone: N runs of one rank each, which all write the same files.
"""

import os
import sys
from collections.abc import Mapping

from distnn.errors import InputError

REMEDY = "use the mpirun that stands beside this Python, or the Python of that mpirun"
# a launcher's variable for each number of ranks, and the MPI whose launcher sets it
SIZES = {"OMPI_COMM_WORLD_SIZE": "Open MPI", "PMI_SIZE": "MPICH", "SLURM_STEP_NUM_TASKS": ""}
RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID")
LOCAL_SIZES = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")
LOCAL_RANKS = ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")


def launched_ranks(environ: Mapping[str, str] = os.environ) -> tuple[int, str]:
    """How many ranks were launched, and by the launcher of which MPI; 1 and "" by none."""
    for name, library in SIZES.items():
        if environ.get(name, "").isdecimal():
            # srun sets PMI_SIZE, too, and may start any MPI; the other name is of mpirun alone
            is_srun = name == "PMI_SIZE" and "MPI_LOCALNRANKS" not in environ
            return int(environ[name]), "" if is_srun else library
    return 1, ""


def launched_rank(
    environ: Mapping[str, str] = os.environ, names: tuple[str, ...] = RANKS
) -> int | None:
    """This process's rank as the launcher has it, or another number."""
    return next((int(environ[name]) for name in names if environ.get(name, "").isdecimal()), None)


def check_library(library: str, environ: Mapping[str, str] = os.environ) -> None:
    """Before MPI is initialised: whether the launcher is that of this MPI.

    Args:
        library: the MPI's version, as it says it itself.

    Raises:
        InputError: it is another one's, or srun's PMIx, which this MPI is built without.
    """
    _, launcher = launched_ranks(environ)
    by_pmix = "PMIX_NAMESPACE" in environ and not {"PMI_RANK", "PMI_FD"} & environ.keys()
    if not launcher and by_pmix and "MPICH" in library and "pmix" not in library.lower():
        what = f"the MPICH of {sys.executable} is built without PMIx"
        raise InputError(what, "srun --mpi=pmix", "give srun --mpi=pmi2")
    if launcher and ("Open MPI" in library) != (launcher == "Open MPI"):
        linked = " ".join(library.split()[:3])
        raise InputError(
            f"{sys.executable} is linked with {linked}", f"mpirun of {launcher}", REMEDY
        )


def check_size(size: int, environ: Mapping[str, str] = os.environ) -> None:
    """After it: whether all ranks that were launched found one another; raises InputError."""
    launched, launcher = launched_ranks(environ)
    if size == 1 < launched:
        what = f"started {launched} processes, but each is alone in its MPI"
        where = f"mpirun of {launcher}" if launcher else "srun"
        remedy = REMEDY if launcher else "give srun --mpi=pmi2 or pmix, as this MPI takes it"
        raise InputError(what, where, remedy)
