"""How a step's time grows: python tests/benchmarks/growth.py [--out DIR] [--prefix COMMAND ...].

Step time and the machine's limit against width, depth, batch and ranks, as `distnn.bench` tells
them. Each point is the best of some rounds, because what disturbs a machine only ever adds. Writes
growth.json and, with matplotlib, growth.png; prints every point, and the slope (exponent) of the
step time between neighbours beside that of the limit.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
WIDTHS = [16, 32, 64, 128, 256, 512, 1024]
DEPTHS = [1, 2, 3, 4, 6, 8]
BATCHES = [8, 16, 32, 64, 128, 256, 512, 1024]
RANKS = [1, 2, 3, 4, 6, 8]
AXES = {
    "width of 784-w-10, batch 64": {w: f"784-{w}-10:64" for w in WIDTHS},
    "hidden layers of 128, batch 64": {d: f"784{'-128' * d}-10:64" for d in DEPTHS},
    "batch of 784-128-10": {b: f"784-128-10:{b}" for b in BATCHES},
}
SCALING = {"784-128-10": "784-128-10:64", "784-512-512-10": "784-512-512-10:256"}


def run(ranks, arguments, prefix):
    """The standard output of a Python program under mpirun."""
    mpirun = shutil.which("mpirun", path=Path(sys.executable).parent) or "mpirun"
    return subprocess.run(
        [*prefix, mpirun, "-n", str(ranks), sys.executable, *arguments],
        check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    ).stdout  # fmt: skip


def steps(ranks, networks, seconds, prefix):
    """Seconds per step of each network."""
    worker = [str(HERE.parent / "workers.py"), "distnn", "sgd", str(seconds), ",".join(networks)]
    return json.loads(run(ranks, worker, prefix).strip().splitlines()[-1])


def limits(ranks, networks, prefix):
    """The limit of each network's step, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        flags = ["--optimizer", "sgd", "--seconds", "0.1", "--json", str(path)]
        run(ranks, ["-m", "distnn.bench", "--networks", ",".join(networks), *flags], prefix)
        return [one["limit"] for one in json.loads(path.read_text())["figures"]]


def points(ranks, networks, seconds, rounds, prefix):
    """[seconds per step, limit] of each network: the best of the rounds, see the module."""
    found = []
    for _ in range(rounds):
        found.append(steps(ranks, networks, seconds, prefix))
        found.append(limits(ranks, networks, prefix))
    best = [map(min, zip(*found[kind::2], strict=True)) for kind in (0, 1)]
    return list(zip(*best, strict=True))


def measure(seconds, rounds, prefix):
    """Per axis and line: [x, seconds per step, limit] of each point."""
    found = {}
    for axis, networks in AXES.items():
        for ranks in (1, 2):
            line = points(ranks, list(networks.values()), seconds, rounds, prefix)
            line = [[x, *point] for x, point in zip(networks, line, strict=True)]
            found.setdefault(axis, {})[f"{ranks} ranks"] = line
    for ranks in RANKS:
        line = points(ranks, list(SCALING.values()), seconds, rounds, prefix)
        for name, point in zip(SCALING, line, strict=True):
            lines = found.setdefault(f"ranks on {os.cpu_count()} cores", {})
            lines.setdefault(name, []).append([ranks, *point])
    return found


def slope(before, after, column):
    """The exponent with which a column grows from one point to the next."""
    return math.log(after[column] / before[column]) / math.log(after[0] / before[0])


def tell(found):
    """Print every point."""
    for axis, lines in found.items():
        for name, points in lines.items():
            print(f"\n{axis}, {name}: microseconds (slope), limit (slope)")
            for number, point in enumerate(points):
                x, seconds, limit = point
                slopes = ["", ""]
                if number:
                    slopes = [f"({slope(points[number - 1], point, c):.2f})" for c in (1, 2)]
                print(f"{x:6} {seconds * 1e6:10.0f} {slopes[0]:7} {limit * 1e6:10.0f} {slopes[1]}")


def plot(found, path):
    """One panel per axis: step times drawn through, limits dashed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(found), figsize=(4.5 * len(found), 4))
    for axes, (axis, lines) in zip(panels, found.items(), strict=True):
        for name, points in lines.items():
            xs, seconds, limits = zip(*points, strict=True)
            (drawn,) = axes.plot(xs, [1e6 * y for y in seconds], marker="o", label=name)
            limits = [1e6 * y for y in limits]
            axes.plot(xs, limits, linestyle="--", color=drawn.get_color(), label=f"{name}, limit")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel(axis)
        axes.set_ylabel("microseconds per step")
        axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description="how a step's time grows")
    parser.add_argument("--seconds", type=float, default=0.3, help="per network and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks"))
    parser.add_argument("--prefix", nargs="+", default=[], help="a command around each run")
    flags = parser.parse_args()
    found = measure(flags.seconds, flags.rounds, flags.prefix)
    tell(found)
    flags.out.mkdir(parents=True, exist_ok=True)
    (flags.out / "growth.json").write_text(json.dumps(found, indent=1))
    try:
        plot(found, flags.out / "growth.png")
    except ImportError:
        print("no plot: matplotlib is not installed (extra: peers)")


if __name__ == "__main__":
    main()
