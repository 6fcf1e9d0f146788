"""The arrows between the rooms of the house, and the size of what stands in them."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "distnn"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = ("nn", "data", "parallel", "run", "config")
NAMES = [str(path.relative_to(ROOT)) for path in FILES]
TOP_LEVEL = {
    "pyproject.toml", "README.md", "Dockerfile", "LICENSE", "distnn", "launch", "tests", "examples",
}  # fmt: skip


def imported(path: Path) -> Iterator[str]:
    """The full names of all modules and names that a file imports, wherever in the file."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, *filter(None, [node.module])))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def room(name: str) -> str:
    """The room of a dotted name or of a file's parts: distnn.nn.losses -> nn, else ''."""
    parts = name.split(".")
    return parts[1] if parts[0] == "distnn" and parts[1:2] and parts[1] in ROOMS else ""


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_rooms_do_not_import_each_other_nor_what_stands_above(path: Path) -> None:
    here = room(".".join(path.relative_to(ROOT).parts))
    if not here:
        return  # the trainer and the commands: above all rooms
    # the bare package: its version
    names = [name for name in imported(path) if name.startswith("distnn.")]
    allowed = (f"distnn.{here}", "distnn.errors", "distnn.checks")
    assert [
        name for name in names if not f"{name}.".startswith(tuple(f"{a}." for a in allowed))
    ] == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_mpi4py_is_imported_in_parallel_only(path: Path) -> None:
    if room(".".join(path.relative_to(ROOT).parts)) != "parallel":
        assert [name for name in imported(path) if name.split(".")[0] == "mpi4py"] == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    functions = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    sizes = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {name: size for name, size in sizes.items() if size > 60} == {}


def test_nothing_else_stands_at_the_top_level() -> None:
    git = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if git.returncode != 0:
        pytest.skip("not a git checkout")
    top = {line.split("/")[0] for line in git.stdout.splitlines()}
    assert {name for name in top - TOP_LEVEL if not name.startswith(".")} == set()


def test_ranks_load_no_more_than_they_need() -> None:
    """What 255 of 256 ranks import before the first step; files, flags and texts are rank 0's."""
    script = """
import sys
from distnn import command, train
from distnn.parallel.watchdog import signals
from distnn.config import options
train.load_what_all_need()
loaded = {"argparse", "csv", "difflib", "distnn.data.sources", "distnn.training.run_files",
    "distnn.run.background", "gzip", "matplotlib", "numpy.random", "tomllib", "safetensors",
    "subprocess", "tempfile", "tqdm"}
print(sorted(loaded & set(sys.modules)))
"""
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"
