"""Do tests notice wrong code? `python tests/mutate.py [PART ...] [--count N --seed N --out FILE]`

Draws small mistakes in the files of the parts (a comparison, an operator, a constant or a condition
that is another one, a call that is left out), makes one at a time in a copy of the project, and
runs the tests of that part until one fails or hangs: first the file's own tests, then the others,
serially and on ranks, and last those that start whole jobs. A line is printed for each mistake,
with the test that failed, and a table at the end; whoever reads it decides which of those that
survived mean the same as what was there. Lines go to FILE, too, and what is there already is not
run again. With `holes` it makes the mistakes that went unnoticed before.
"""

import argparse
import ast
import os
import random
import re
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from system.launch import kill_session, mpirun_command

ROOT = Path(__file__).parents[1]
SILENCE = 200  # seconds in which no test ends: one hangs
LONG = "tests/training/test_any_ranks.py"  # on three ranks, which take turns on two cores
FAILED = re.compile(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?\n|^(tests/.+) failed in \w+\n", re.M)
OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Div: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
SURVIVED = "SURVIVED"
RUN, WATCHDOG = "distnn/run/", "distnn/parallel/watchdog/"
SESSION = "distnn/training/session.py"
# Mistakes that no test noticed once: file, what stands there, what could, and who must notice.
HOLES = [
    (SESSION, "(position.steps, slices)", "(0, slices)", "tests/training/test_session.py"),
    (SESSION, ", *self.exchange.state.values())", ",)", "tests/training/test_session.py"),
    (SESSION, " or np.isfinite(vector).all()", "", "tests/training/test_session.py"),
    (
        "distnn/training/batches.py",
        "min(position.step *",
        "max(position.step *",
        "tests/training/test_batches.py",
    ),
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
# Of each part its files, and the tests that cover them.
PARTS = {
    "session": (["distnn/training/session.py", "distnn/training/batches.py"], [
        "tests/training/test_session.py", "tests/training/test_trainer.py",
        "tests/training/test_trainer_errors.py", "tests/training/test_trainer_files.py",
        "tests/training/test_average.py", "tests/training/test_noise_scale.py",
        "tests/training/test_validation.py", "tests/training/test_wire.py",
        "tests/training/test_own_gradient.py", "tests/training/test_steady_state.py",
        "tests/training/test_batches.py", "tests/training/test_many_fits.py",
        "tests/training/test_any_ranks.py",
    ]),
    "reduction": (["distnn/parallel/reduction"], [
        "tests/parallel/reduction", "tests/training/test_session.py",
        "tests/training/test_wire.py", "tests/training/test_noise_scale.py",
        "tests/training/test_own_gradient.py", "tests/training/test_steady_state.py",
        "tests/training/test_any_ranks.py",
    ]),
    "watchdog": (["distnn/parallel/watchdog"], [
        "tests/parallel/watchdog", "tests/training/test_trainer_errors.py",
        "tests/training/test_consistency.py", "tests/training/test_many_fits.py",
        "tests/system/test_start.py", "tests/system/test_failures.py", "tests/system/test_stop.py",
    ]),
    "run": (["distnn/run"], [
        "tests/run", "tests/training/test_run_files.py", "tests/training/test_trainer_files.py",
        "tests/training/test_saved.py", "tests/training/test_trace.py", "tests/test_train.py",
        "tests/system/test_terminal.py", "tests/system/test_trace.py",
    ]),
}  # fmt: skip


def python_files(names: list[str]) -> list[str]:
    """The files of these names, and those in the folders."""
    folders = {name: sorted((ROOT / name).rglob("*.py")) for name in names}
    return [
        str(path.relative_to(ROOT)) for name in names for path in folders[name] or [ROOT / name]
    ]


def stages(name: str, tests: list[str]) -> list[list[str]]:
    """The tests of a file, the others, and those that start whole jobs."""
    found = [test for test in python_files(tests) if Path(test).name.startswith("test_")]
    jobs = [test for test in found if test.startswith("tests/system/")]
    stem = Path(name).stem
    own = [
        test
        for test in found
        if Path(test).stem.startswith(f"test_{stem}")
        or f".{stem} import" in (ROOT / test).read_text()
    ]
    own = [test for test in own if test not in jobs]
    return [own, [test for test in found if test not in (*own, *jobs)], jobs]


def _change(node: object) -> ast.AST | None:
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


def _old(parent: ast.AST, field: str, at: int | None) -> ast.AST:
    holder = getattr(parent, field)
    return holder if at is None else holder[at]


def places_of_mistakes(name: str) -> list[int]:
    """The numbers of the places of a file where a mistake can be made."""
    places = enumerate(_places(ast.parse((ROOT / name).read_text())))
    return [number for number, place in places if _change(_old(*place)) is not None]


def mutant(name: str, number: int) -> tuple[str, str]:
    """What is changed where, and the whole text with the mistake at a place of a file."""
    tree = ast.parse((ROOT / name).read_text())
    parent, field, at = list(_places(tree))[number]
    old = _old(parent, field, at)
    new = _change(old)
    assert new is not None
    before, after = (ast.unparse(node).splitlines()[0] for node in (old, new))
    if at is None:
        setattr(parent, field, new)
    else:
        getattr(parent, field)[at] = new
    where = f"{name}:{old.lineno}:{old.col_offset}"  # type: ignore[attr-defined]
    return f"{where} {before} -> {after}", ast.unparse(ast.fix_missing_locations(tree))


def failure(command: list[str], copy: Path) -> str:
    """The test that fails in a run, or how else it goes wrong; empty if it does not."""
    process = subprocess.Popen(
        command, cwd=copy, env=os.environ | {"PYTHONPATH": str(copy)}, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    what = output = ""
    with process.stdout as stream:
        while not what:
            if not select.select([stream], [], [], SILENCE)[0]:
                what = "hangs"
            elif data := os.read(stream.fileno(), 1 << 16):
                output += data.decode(errors="replace")
                what = next((found[1] or found[2] for found in FAILED.finditer(output)), "")
            else:
                break
    if what:
        kill_session(process.pid)  # where one rank has failed, the others wait for it
    code = process.wait()
    return what or ("" if code in (0, 5) else f"exit code {code}")  # 5: no test of this kind


def killed_by(copy: Path, stages: list[list[str]]) -> str:
    """The number of ranks and the test that fails; empty if none does."""
    pytest = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    for tests in filter(None, stages):
        for ranks in (0, 3, 2):
            mpi = [*mpirun_command(), "-n", str(ranks)] if ranks else []
            only = ["--only-mpi"] if ranks else []
            chosen = [test for test in tests if ranks != 3 or test != LONG]
            if chosen and (what := failure([*mpi, *pytest, *only, *chosen], copy)):
                return f"{ranks or 'no'} ranks: {what}"
    return ""


def holes(copy: Path) -> None:
    """Make each of HOLES, and say which tests notice it."""
    killed = 0
    for name, old, new, tests in HOLES:
        path, text = copy / name, (ROOT / name).read_text()
        if text.count(old) != 1:
            raise SystemExit(f"{name} has {text.count(old)} times {old!r}")
        path.write_text(text.replace(old, new))
        killer = killed_by(copy, [tests.split()])
        path.write_text(text)
        killed += bool(killer)
        print(f"{path.name} {old.strip()!r} -> {new.strip()!r}\t{killer or SURVIVED}", flush=True)
    print(f"{killed} of {len(HOLES)} killed")


def run(part: str, copy: Path, options: argparse.Namespace, known: dict[str, str]) -> str:
    """Make the mistakes of a part, those that are not known; the line of the table."""
    sources, tests = PARTS[part]
    drawn = [(name, place) for name in python_files(sources) for place in places_of_mistakes(name)]
    random.Random(f"{options.seed} {part}").shuffle(drawn)
    mistakes = {}
    for name, place in drawn[: options.count]:
        what, text = mutant(name, place)
        mistakes[what] = name, text
    new = [what for what in mistakes if what not in known]
    if new and (killer := killed_by(copy, stages("", tests))):
        raise SystemExit(f"{part}: fails without a mistake: {killer}")
    for what in new:
        name, text = mistakes[what]
        unchanged = (copy / name).read_text()
        (copy / name).write_text(text)
        known[what] = killed_by(copy, stages(name, tests)) or SURVIVED
        (copy / name).write_text(unchanged)
        line = f"{what}\t{known[what]}"
        print(line, flush=True)
        if options.out is not None:
            with options.out.open("a") as file:
                file.write(line + "\n")
    killed = sum(known[what] != SURVIVED for what in mistakes)
    return f"{part:10} {killed} of {len(mistakes)} killed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=[*PARTS, "holes"])
    parser.add_argument("--count", type=int, default=20, help="of each part")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="of an earlier run, which is gone on with")
    options = parser.parse_args()
    known = {}
    if options.out is not None and options.out.exists():
        known = dict(line.split("\t") for line in options.out.read_text().splitlines())
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*"))
        if "holes" in options.parts:
            holes(copy)
            return
        table = [run(part, copy, options, known) for part in options.parts]
    print(*table, sep="\n")


if __name__ == "__main__":
    main()
