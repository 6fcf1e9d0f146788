"""A table of many rows, read in windows, beside the same in memory: speed, memory, one hash.

    python tests/benchmarks/stream.py [--rows 1000000] [--columns 20] [--ranks 2 4] [--memory]

A Parquet file of random numbers is written (--rows 10000000: about 1.6 GB), and a network of
20-64-32-1 is trained on it. Rows per second are those of a whole epoch, reading in windows
included, from the lines of the run's timings; memory is the sum of the proportional set sizes of
all ranks at its largest, less that of a run on 2,000 rows of the same file: Python, numpy, MPI,
pyarrow. With --memory, the same in memory is measured beside. In the end a run is killed in the
middle of an epoch and goes on on 3 ranks.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "system"))
from memory import proportional, ranks_of

from launch import environment, kill_session, mpirun_command

FLAGS = ["--hidden", "64", "32", "--batch-size", "512", "--epochs", "2", "--task", "regression",
         "--checkpoint-every", "200s", "--progress", "off"]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--groups", type=int, default=100_000, help="rows of a row group")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--memory", action="store_true", help="also held in memory")
    asked = parser.parse_args()
    window = (1 << 22) // (1 + asked.columns)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write(folder / "large.parquet", asked.rows, asked.columns, asked.groups)
        write(folder / "small.parquet", 2000, asked.columns, 1000)
        print(f"{asked.rows} rows, {size / 1e6:.0f} MB of Parquet, windows of {window} rows")
        print("| ranks | read in | rows/s | MB of the node | start, s | hash |")
        print("|---|---|---|---|---|---|")
        hashes = set()
        for ranks in asked.ranks:
            base = run(folder, ranks, "small.parquet", 1000)["peak"]
            for rows in [window, 0] if asked.memory else [window]:
                found = run(folder, ranks, "large.parquet", rows)
                print(
                    f"| {ranks} | {'windows' if rows else 'memory'} | {found['rate']:.0f} "
                    f"| {found['peak'] - base:.0f} | {found['start']:.1f} | {found['hash'][:8]} |",
                    flush=True,
                )
                hashes |= {found["hash"]} if rows else set()
        again = killed_and_resumed(folder, window)
        print(f"killed in the middle of an epoch on 2 ranks, gone on on 3: {again[:8]}")
        if hashes != {again}:
            raise SystemExit(f"hashes differ: {sorted(hashes | {again})}")


def write(path: Path, rows: int, columns: int, group: int) -> int:
    """A target that is a smooth function of standard normal columns, and noise; the file's size."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    draw = np.random.default_rng(0)
    direction, writer = draw.normal(size=columns) / columns**0.5, None
    for start in range(0, rows, group):
        x = draw.normal(size=(min(group, rows - start), columns))
        y = np.tanh(x @ direction) + 0.1 * draw.normal(size=len(x))
        table = pa.table({**{f"x{j}": x[:, j] for j in range(columns)}, "y": y})
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=group)
    assert writer is not None
    writer.close()
    return path.stat().st_size


def command(ranks: int, data: str, window: int, run_dir: str) -> list[str]:
    return [*mpirun_command(), "-n", str(ranks), sys.executable, "-m", "distnn.train", "--data",
            data, "--window", str(window), "--run-dir", run_dir, "--resume", *FLAGS]  # fmt: skip


def started(words: list[str], folder: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        words, cwd=folder, env=environment(), stdout=subprocess.DEVNULL, start_new_session=True
    )


def run(folder: Path, ranks: int, data: str, window: int) -> dict[str, Any]:
    """Peak of the memory in MB, rows per second of the last epoch, seconds before the first."""
    run_dir, peak = f"run-{ranks}-{window}-{data}", 0.0
    begin = time.perf_counter()
    process = started(command(ranks, data, window, run_dir), folder)
    while process.poll() is None:
        sizes = [size[0] for pid in ranks_of(run_dir) if (size := proportional(pid))]
        peak = max(peak, sum(sizes)) if len(sizes) == ranks else peak
        time.sleep(0.2)
    seconds = time.perf_counter() - begin
    if process.returncode:
        raise SystemExit(f"code {process.returncode}")
    path = folder / run_dir
    summary = json.loads((path / "summary.json").read_text())
    timings = [json.loads(line) for line in (path / "timings.jsonl").read_text().splitlines()]
    return {
        "peak": peak,
        "rate": timings[-1]["samples_per_second"],
        "start": seconds - sum(epoch["seconds"] for epoch in timings),
        "hash": summary["weights_sha256"],
    }


def killed_and_resumed(folder: Path, window: int) -> str:
    """The hash of a run that is killed in its second epoch and goes on on 3 ranks."""
    words = command(2, "large.parquet", window, "killed")
    process, path = started(words, folder), folder / "killed"
    while not (path / "metrics.jsonl").exists() or not (path / "metrics.jsonl").read_text():
        if process.poll() is not None:
            raise SystemExit(f"ended before it was killed, code {process.returncode}")
        time.sleep(0.1)
    newest = max((path / "checkpoints").iterdir(), key=os.path.getmtime)
    while max((path / "checkpoints").iterdir(), key=os.path.getmtime) == newest:
        time.sleep(0.05)  # until another checkpoint, now within the second epoch
    kill_session(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if (path / "summary.json").exists():
        raise SystemExit("ended before it was killed")
    words = command(3, "large.parquet", window, "killed")
    subprocess.run(words, cwd=folder, env=environment(), check=True, stdout=subprocess.DEVNULL)
    summary = json.loads((path / "summary.json").read_text())
    return str(summary["weights_sha256"])


if __name__ == "__main__":
    main()
