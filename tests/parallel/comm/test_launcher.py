"""A launcher of another MPI is an error of one line, before anything is trained."""

import os
import subprocess
import sys

import pytest

from distnn.errors import InputError
from distnn.parallel.comm.launcher import check_library, check_size, launched_rank, launched_ranks

MPICH = {"PMI_SIZE": "4", "PMI_RANK": "0", "MPI_LOCALNRANKS": "4"}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "PMIX_RANK": "3"}
SRUN = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4", "SLURM_PROCID": "2"}
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("PMI", "OMPI_COMM", "MPI_LOCAL", "HYDI", "SLURM"))
}


@pytest.mark.parametrize(
    ("environ", "ranks", "rank"),
    [({}, (1, ""), None), (MPICH, (4, "MPICH"), 0), (OPEN_MPI, (4, "Open MPI"), 3),
     (SRUN, (4, ""), 2), ({"PMI_SIZE": "4"}, (4, ""), None), ({"SLURM_NTASKS": "4"}, (1, ""), None),
     ({"PMI_SIZE": "many"}, (1, ""), None)],
)  # fmt: skip
def test_what_the_environment_says(environ, ranks, rank):
    assert launched_ranks(environ) == ranks
    assert launched_rank(environ) == rank


@pytest.mark.parametrize("library", ["MPICH Version: 5.0.2", "Open MPI v5.0.11, package", "Intel"])
def test_the_launcher_of_another_mpi(library):
    own, other = (OPEN_MPI, MPICH) if "Open" in library else (MPICH, OPEN_MPI)
    for environ in ({}, SRUN, own):
        check_library(library, environ)
    with pytest.raises(InputError, match=f"{sys.executable} is linked with {library.split()[0]}"):
        check_library(library, other)


def test_an_mpich_without_pmix():
    by_pmix = SRUN | {"PMIX_NAMESPACE": "slurm.pmix.1.0", "PMIX_RANK": "2"}
    for library in ("MPICH Version: 4.3\nMPICH configure: --with-pmix=/usr", "Open MPI v5.0.11"):
        check_library(library, by_pmix)
    check_library("MPICH Version: 5.0.2", by_pmix | {"PMI_RANK": "2"})
    with pytest.raises(InputError, match=r"built without PMIx; give srun --mpi=pmi2"):
        check_library("MPICH Version: 5.0.2", by_pmix)


@pytest.mark.parametrize("environ", [MPICH, OPEN_MPI, SRUN])
def test_ranks_that_are_alone(environ):
    check_size(4, environ)
    check_size(1, {})
    with pytest.raises(InputError, match=r"started 4 processes, but each is alone"):
        check_size(1, environ)


@pytest.mark.parametrize("module", ["train", "doctor"])
@pytest.mark.parametrize("environ", [SRUN, MPICH | OPEN_MPI], ids=["srun", "mpirun"])
def test_a_command_prints_one_line(module, environ, tmp_path):
    environ = environ | {"SLURM_PROCID": "0", "OMPI_COMM_WORLD_RANK": "0", "PMI_SIZE": ""}
    result = subprocess.run(
        [sys.executable, "-m", f"distnn.{module}"], env=CLEAN | environ,
        capture_output=True, text=True, cwd=tmp_path, timeout=60,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith(f"distnn.{module}: ")
    assert not list(tmp_path.iterdir())


def test_a_python_without_mpi4py_is_named_if_it_is_one_of_several():
    script = (
        "import sys; sys.modules['mpi4py'] = None\n"
        "from distnn.command import run\nfrom distnn.doctor import doctor\nrun('doctor', doctor)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        env=CLEAN | {"PMI_SIZE": "2"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        f"distnn.doctor: MPI: {sys.executable} has no mpi4py; "
        "install it there, with pip install mpi4py"
    ]
