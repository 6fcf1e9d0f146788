"""The arrows between the rooms of the house, and the size of what stands in them."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "distnn"
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]
TOP_LEVEL = {
    "pyproject.toml", "README.md", "Dockerfile", "LICENSE", "distnn", "launch", "tests", "examples",
}  # fmt: skip
MOST_BOXES = 21  # files and folders of distnn/, as a reader sees them

# Rooms from the top floor down; a file imports from floors below its own. Below the commands stands
# what they start with, and at the bottom what everything may import.
FLOORS: list[set[str]] = [
    {
        "train",
        "evaluate",
        "predict",
        "bench",
        "doctor",
        "report",
        "export",
        "sklearn",
        "__main__",
        "__init__",
    },
    {"command", "diagnostics"},
    {"training"},
    {"run", "config", "nn", "data", "parallel"},
    {"checks", "blas_threads"},
    {"errors"},
]
BELOW_IN_PARALLEL = {"reduction": {"comm"}, "watchdog": {"comm"}, "comm": set[str]()}


def imported(path: Path) -> Iterator[str]:
    """The full names of all modules and names that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(parts: tuple[str, ...]) -> str:
    """The room of a dotted name's parts: distnn.nn.losses -> nn, distnn.train -> train."""
    return parts[1].removesuffix(".py") if len(parts) > 1 else ""


def floor(name: str) -> int:
    """The number of a room's floor, from the top."""
    return next(number for number, rooms in enumerate(FLOORS) if name in rooms)


def ours(path: Path) -> list[tuple[str, ...]]:
    """What a file imports of this package, as parts of dotted names; not its version."""
    names = [tuple(name.split(".")) for name in imported(path)]
    return [parts for parts in names if parts[0] == "distnn" and len(parts) > 1]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_imports_run_from_a_floor_to_those_below(path: Path) -> None:
    """Also those inside functions and for type hints."""
    here = room(path.relative_to(ROOT).parts)
    others = {room(parts) for parts in ours(path)} - {here, "__version__"}
    assert [other for other in others if floor(other) <= floor(here)] == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_reduction_and_watchdog_import_no_more_of_parallel_than_comm(path: Path) -> None:
    parts = path.relative_to(ROOT).parts
    if parts[1] != "parallel" or len(parts) < 4:
        return
    others = {name[2] for name in ours(path) if name[1] == "parallel"} - {parts[2]}
    assert others <= BELOW_IN_PARALLEL[parts[2]]


def test_no_file_imports_itself_by_way_of_others() -> None:
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
    graph = {
        name: {
            ".".join(parts[:end])
            for parts in ours(path)
            for end in range(2, len(parts) + 1)
            if ".".join(parts[:end]) in modules
        }
        for name, path in modules.items()
    }
    list(TopologicalSorter(graph).static_order())  # raises CycleError with the names


def test_the_package_is_seen_at_a_glance() -> None:
    boxes = [
        path
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    ]
    assert len(boxes) <= MOST_BOXES


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_mpi4py_is_imported_in_one_place(path: Path) -> None:
    if path != PACKAGE / "parallel" / "comm" / "mpi.py":
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
