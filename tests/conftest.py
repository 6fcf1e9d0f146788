"""What all tests share: which tests a run collects, and what a failure shows under mpirun."""

import os
import sys

import hypothesis
import pytest

# The machine may be busy: no deadlines; and the same examples in every run (on ranks: drawn.py).
hypothesis.settings.register_profile("distnn", deadline=None, derandomize=True)
hypothesis.settings.load_profile("distnn")

UNDER_MPIRUN = any(name in os.environ for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `mpi` run under mpirun (`--only-mpi`), all the others in the serial run."""
    mpi_run = config.getoption("--only-mpi") or config.getoption("--with-mpi")
    wanted = [item for item in items if ("mpi" in item.keywords) == bool(mpi_run)]
    others = [item for item in items if ("mpi" in item.keywords) != bool(mpi_run)]
    config.hook.pytest_deselected(items=others)
    items[:] = wanted


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Shows a rank's failure at once: the others may wait for it until the run is ended."""
    if UNDER_MPIRUN and report.failed:
        print(f"\n{report.nodeid} failed in {report.when}\n{report.longreprtext}", file=sys.stderr)
