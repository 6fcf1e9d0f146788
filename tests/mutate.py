"""Do tests notice wrong code? `python tests/mutate.py [--count N] [--seed N] [PART ...]`

Draws small mistakes in the files of the parts (a comparison, an operator, a constant or a condition
that is another one, a call that is left out), makes one at a time in a copy of the project, and
runs the tests of that part, serially and then on two and three ranks, until one fails or hangs. A
line is printed for each, and a table at the end; whoever reads it decides which of those that
survived mean the same as what was there. With `holes` it makes those that went unnoticed before.
"""

import argparse
import ast
import collections
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MPIRUN = Path(sys.executable).with_name("mpirun")
SECONDS = 150  # of one test run; a longer one hangs
OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Div: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
RUN, WATCHDOG = "distnn/run/", "distnn/parallel/watchdog/"
SESSION = "distnn/training/session.py"
# Mistakes that no test noticed once: file, what stands there, what could, and who must notice.
HOLES = [
    (SESSION, "(position.steps, slices)", "(0, slices)", "tests/training/test_session.py"),
    (SESSION, ", *self.exchange.state.values())", ",)", "tests/training/test_session.py"),
    (SESSION, " or np.isfinite(vector).all()", "", "tests/training/test_session.py"),
    (SESSION, "min(position.step *", "max(position.step *", "tests/training/test_session.py"),
    (SESSION, "if self._loss_sums.full:", "if False:", "tests/training/test_session.py"),
    (
        "distnn/training/loop.py",
        "stop = stop and not self._at_end()",
        "pass",
        "tests/training/test_trainer_files.py tests/training/test_trainer_errors.py",
    ),
    (
        "distnn/training/loop.py",
        "epoch % number == 0",
        "epoch * number == 0",
        "tests/training/test_trainer_files.py tests/training/test_trainer.py",
    ),
    (
        "distnn/training/loop.py",
        '            self._unsaved_message()\n            self._record_end("div',
        '            self._record_end("div',
        "tests/training/test_trainer_files.py",
    ),
    (
        WATCHDOG + "watchdog.py",
        "min(time.monotonic() - start, 2 * INTERVAL)",
        "time.monotonic() - start",
        "tests/parallel/watchdog/test_watchdog_thread.py",
    ),
    (
        WATCHDOG + "watchdog.py",
        "os.getppid() != self._parent",
        "False",
        "tests/parallel/watchdog/test_watchdog_thread.py",
    ),
    (
        WATCHDOG + "watchdog.py",
        "failed_for >= RAISE_SECONDS",
        "False",
        "tests/parallel/watchdog/test_watchdog_thread.py",
    ),
    (
        WATCHDOG + "watchdog.py",
        "if is_first else ABORT_SECONDS",
        "if is_first else 0",
        "tests/parallel/watchdog/test_watchdog_thread.py",
    ),
    (
        WATCHDOG + "watchdog.py",
        "time.sleep(REPORT_SECONDS if",
        "time.sleep(0 if",
        "tests/parallel/watchdog/test_watchdog_thread.py",
    ),
    (
        WATCHDOG + "watchdog.py",
        "is_busy or self._activity[1]",
        "is_busy and self._activity[1]",
        "tests/parallel/watchdog/test_watchdog_thread.py",
    ),
    (
        WATCHDOG + "watchdog.py",
        "    signal.alarm(ABORT_SECONDS)",
        "    pass",
        "tests/parallel/watchdog/test_watchdog_thread.py",
    ),
    (
        WATCHDOG + "watchdog.py",
        "        os.unlink(name)",
        "        pass",
        "tests/parallel/watchdog/test_watchdog_thread.py",
    ),
    (RUN + "files.py", "        flush(aside)\n", "", "tests/run/test_files.py"),
    (RUN + "files.py", "    flush_directory(path.parent)\n", "", "tests/run/test_files.py"),
    (RUN + "metrics.py", "            os.fsync(file.fileno())\n", "", "tests/run/test_metrics.py"),
    (
        RUN + "metrics.py",
        "            file.truncate(before)",
        "            pass",
        "tests/run/test_metrics.py",
    ),
]
PARTS = {
    "session": (["distnn/training/session.py"], [
        "tests/training/test_session.py", "tests/training/test_steady_state.py",
        "tests/training/test_any_ranks.py", "tests/training/test_trainer.py",
    ]),
    "reduction": (["distnn/parallel/reduction"], ["tests/parallel/reduction"]),
    "watchdog": (["distnn/parallel/watchdog"], [
        "tests/parallel/watchdog", "tests/training/test_trainer_errors.py",
        "tests/system/test_start.py", "tests/system/test_failures.py",
    ]),
    "run": (["distnn/run"], [
        "tests/run", "tests/training/test_run_files.py", "tests/training/test_trainer_files.py",
    ]),
}  # fmt: skip


def files(part: str) -> list[Path]:
    """The modules of a part."""
    found = []
    for name in PARTS[part][0]:
        path = ROOT / name
        found += [path] if path.is_file() else sorted(path.glob("*.py"))
    return found


def _change(node: ast.AST) -> ast.AST | None:
    """The mistake that is made at a node; None where there is none."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
        ops = [OPERATORS[type(node.ops[0])](), *node.ops[1:]]
        return ast.Compare(node.left, ops, node.comparators)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
    if isinstance(node, ast.BoolOp):
        return ast.BoolOp(OPERATORS[type(node.op)](), node.values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return node.operand
    if isinstance(node, (ast.If, ast.While)):
        return type(node)(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        return ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return ast.Pass()
    return None


def _places(tree: ast.AST) -> Iterator[tuple[ast.AST, str, int | None]]:
    """Where a node can be replaced: its parent, the field, and the index in it."""
    for parent in ast.walk(tree):
        if isinstance(parent, (ast.JoinedStr, ast.Raise)):
            continue  # messages
        for field, value in ast.iter_fields(parent):
            if field in ("annotation", "returns"):
                continue
            if isinstance(value, list):
                yield from ((parent, field, at) for at in range(len(value)))
            elif isinstance(value, ast.AST):
                yield parent, field, None


def mutants(path: Path) -> list[tuple[int, str, str]]:
    """Line, what is changed, and the whole text of each mutant of a file."""
    source = path.read_text()
    found = []
    for number in range(len(list(_places(ast.parse(source))))):
        tree = ast.parse(source)
        parent, field, at = list(_places(tree))[number]
        holder = getattr(parent, field)
        old = holder if at is None else holder[at]
        new = _change(old) if isinstance(old, ast.AST) else None
        if new is None:
            continue
        before = ast.unparse(old).splitlines()[0]
        if at is None:
            setattr(parent, field, new)
        else:
            holder[at] = new
        ast.fix_missing_locations(tree)
        after = ast.unparse(new).splitlines()[0]
        found.append((getattr(old, "lineno", 0), f"{before} -> {after}", ast.unparse(tree)))
    return found


def killed_by(copy: Path, tests: list[str]) -> str:
    """The run that fails; empty if none does."""
    pytest = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    runs = {"serial": [*pytest, *tests]}
    for ranks in ("2", "3"):
        runs[f"{ranks} ranks"] = [str(MPIRUN), "-n", ranks, *pytest, "--only-mpi", *tests]
    for name, command in runs.items():
        process = subprocess.Popen(
            command, cwd=copy, env=os.environ | {"PYTHONPATH": str(copy)}, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.terminate()  # mpirun ends its ranks
            process.wait()
            return f"{name}, hangs"
        if code not in (0, 5):  # 5: no test of this kind
            return name
    return ""


def holes(copy: Path) -> None:
    """Make each of HOLES, and say which tests notice it."""
    killed = 0
    for name, old, new, tests in HOLES:
        path, text = copy / name, (ROOT / name).read_text()
        if text.count(old) != 1:
            raise SystemExit(f"{name} has {text.count(old)} times {old!r}")
        path.write_text(text.replace(old, new))
        killer = killed_by(copy, tests.split())
        path.write_text(text)
        killed += bool(killer)
        print(
            f"{killer or 'SURVIVED':16} {path.name} {old.strip()!r} -> {new.strip()!r}", flush=True
        )
    print(f"{killed} of {len(HOLES)} killed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=[*PARTS, "holes"])
    parser.add_argument("--count", type=int, default=20, help="of each part")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts: collections.Counter[tuple[str, bool]] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*"))
        if "holes" in options.parts:
            holes(copy)
            return
        for part in options.parts:
            drawn = [(path, *mutant) for path in files(part) for mutant in mutants(path)]
            random.Random(f"{options.seed} {part}").shuffle(drawn)
            for path, line, what, text in drawn[: options.count]:
                target = copy / path.relative_to(ROOT)
                target.write_text(text)
                killer = killed_by(copy, PARTS[part][1])
                shutil.copy(path, target)
                counts[part, bool(killer)] += 1
                print(f"{killer or 'SURVIVED':16} {path.name}:{line} {what}", flush=True)
    for part in options.parts:
        total = counts[part, True] + counts[part, False]
        print(f"{part:10} {counts[part, True]} of {total} killed")


if __name__ == "__main__":
    main()
