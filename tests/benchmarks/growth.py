"""How a step's time grows: python tests/benchmarks/growth.py [--out DIR] [--prefix COMMAND ...].

Step time and the machine's limit against width, depth, batch and ranks, as `distnn.bench` tells
them. Writes growth.json and, with matplotlib, growth.png; prints every point, and the slope
(exponent) of the step time between neighbours beside that of the limit.
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

ROOT = Path(__file__).resolve().parents[2]
WIDTHS = [16, 32, 64, 128, 256, 512, 1024, 2048]
DEPTHS = [1, 2, 3, 4, 6, 8]
BATCHES = [8, 16, 32, 64, 128, 256, 512, 1024, 2048]
RANKS = [1, 2, 3, 4, 6, 8]
AXES = {
    "width of 784-w-10, batch 64": {w: f"784-{w}-10:64" for w in WIDTHS},
    "hidden layers of 128, batch 64": {d: f"784{'-128' * d}-10:64" for d in DEPTHS},
    "batch of 784-128-10": {b: f"784-128-10:{b}" for b in BATCHES},
}
SCALING = {"784-128-10": "784-128-10:64", "784-512-512-10": "784-512-512-10:256"}


def bench(ranks, networks, seconds, prefix):
    """What `distnn.bench` tells of the networks: a list of figures."""
    mpirun = shutil.which("mpirun", path=Path(sys.executable).parent) or "mpirun"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        subprocess.run(
            [*prefix, mpirun, "-n", str(ranks), sys.executable, "-m", "distnn.bench",
             "--networks", ",".join(networks), "--optimizer", "sgd", "--seconds", str(seconds),
             "--json", str(path)],
            check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        return json.loads(path.read_text())["figures"]


def measure(seconds, prefix):
    """Per axis and line: [x, seconds per step, limit] of each point."""
    found = {}
    for axis, points in AXES.items():
        for ranks in (1, 2):
            figures = bench(ranks, points.values(), seconds, prefix)
            line = [
                [x, one["seconds"], one["limit"]] for x, one in zip(points, figures, strict=True)
            ]
            found.setdefault(axis, {})[f"{ranks} ranks"] = line
    for ranks in RANKS:
        for name, one in zip(SCALING, bench(ranks, SCALING.values(), seconds, prefix), strict=True):
            line = found.setdefault(f"ranks on {os.cpu_count()} cores", {}).setdefault(name, [])
            line.append([ranks, one["seconds"], one["limit"]])
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
    parser.add_argument("--seconds", type=float, default=1.0, help="per network")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"))
    parser.add_argument("--prefix", nargs="+", default=[], help="a command around each run")
    flags = parser.parse_args()
    found = measure(flags.seconds, flags.prefix)
    tell(found)
    flags.out.mkdir(parents=True, exist_ok=True)
    (flags.out / "growth.json").write_text(json.dumps(found, indent=1))
    try:
        plot(found, flags.out / "growth.png")
    except ImportError:
        print("no plot: matplotlib is not installed (extra: peers)")


if __name__ == "__main__":
    main()
