"""What a node holds in memory while it trains, against what it should:

    python tests/benchmarks/memory.py [--ranks 1 2 4 8] [--megabytes 200]

The sum of the proportional set sizes of all ranks (Linux: /proc/PID/smaps_rollup; a page that k
processes share counts 1/k in each) in the middle of training, less the same with a data set and a
network of next to nothing: that is Python, numpy and MPI. It should be

    data + weights + 2 state vectors of Adam + a gradient per rank + the passes' buffers

with everything but the buffers shared, so that only the gradients grow with the ranks.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "system"))
from launch import environment, mpirun_command

FEATURES, HIDDEN, BATCH, MB = 1000, 4096, 512, 1e6
KINDS = ("Pss", "Pss_Anon", "Pss_Shmem")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--megabytes", type=float, default=200)
    asked = parser.parse_args()
    rows = round(asked.megabytes * MB / (4 * (1 + FEATURES)))
    print("MB of one node; in brackets what the formula gives")
    print("| ranks | before | training, less before | shared | private | largest |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "small.npz", 2 * BATCH, 10)
        write(Path(folder) / "large.npz", rows, FEATURES)
        for ranks in asked.ranks:
            before = measure(folder, ranks, "small.npz", 4, epochs=400)[0]
            during, largest = measure(folder, ranks, "large.npz", HIDDEN, epochs=1)
            total, private, shared = (x - y for x, y in zip(during, before, strict=True))
            want_shared, want_private = formula(ranks, rows)
            print(
                f"| {ranks} | {before[0]:.0f} | {total:.0f} ({want_shared + want_private:.0f}) "
                f"| {shared:.0f} ({want_shared if ranks > 1 else 0:.0f}) | {private:.0f} "
                f"({want_private + (0 if ranks > 1 else want_shared):.0f}) | {largest:.0f} |",
                flush=True,
            )


def formula(ranks: int, rows: int) -> tuple[float, float]:
    """MB that a node shares (with one rank: that are private, too), and that are private."""
    weights = 4 * ((1 + FEATURES) * HIDDEN + (1 + HIDDEN) * 4)
    data = rows * (4 * (1 + FEATURES) + 8 + 8)  # rows, class number, order
    shared = data + weights + 2 * weights + ranks * weights
    # of each slice's items: input; hidden with ones, its derivative's scratch, sensitivity
    buffers = BATCH * 4 * ((1 + FEATURES) + (1 + HIDDEN) + 2 * HIDDEN)
    return shared / MB, buffers / MB


def write(path: Path, rows: int, features: int) -> None:
    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, (rows, features), dtype=np.uint8)
    np.savez(path, x_train=x, y_train=x[:, 0] % 4)


def measure(
    folder: str, ranks: int, data: str, hidden: int, epochs: int
) -> tuple[list[float], float]:
    """MB of all ranks in the middle of training, of each kind; and the largest sum at any time."""
    run_dir = str(Path(folder) / f"run-{ranks}-{data}")
    command = [
        *mpirun_command(), "-n", str(ranks), sys.executable, "-m", "distnn.train",
        "--data", data, "--hidden", str(hidden), "--batch-size", str(BATCH),
        "--epochs", str(epochs), "--run-dir", run_dir, "--progress", "off",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL, start_new_session=True
    )
    seen = []
    while process.poll() is None:
        sizes = [size for pid in ranks_of(run_dir) if (size := proportional(pid))]
        if len(sizes) == ranks:
            seen.append([sum(kind) for kind in zip(*sizes, strict=True)])
        time.sleep(0.1)
    if process.returncode or not seen:
        raise SystemExit(f"{' '.join(command)}: code {process.returncode}")
    half = seen[len(seen) // 2 :]  # steady: it trains
    return [statistics.median(kind) for kind in zip(*half, strict=True)], max(s[0] for s in seen)


def ranks_of(run_dir: str) -> list[int]:
    """The processes that train a run."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            if words[1:3] == [b"-m", b"distnn.train"] and run_dir.encode() in words:
                found.append(int(path.name))
        except OSError:
            continue  # it has just ended
    return found


def proportional(pid: int) -> list[float]:
    """MB of one process, of each kind."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return []
    sizes = {line.split(":")[0]: line.split()[1] for line in lines[1:]}
    return [int(sizes[kind]) * 1024 / MB for kind in KINDS] if "Pss" in sizes else []


if __name__ == "__main__":
    main()
