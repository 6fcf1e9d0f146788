"""distnn beside its peers, in one run: python tests/benchmarks/compare.py [--help].

Needs the extra `peers` (pip install -e '.[mpich,peers]'). Each round runs every contender once, one
after the other, so that a machine that is slow for a while is slow for all; what is told is the
median over the rounds. Writes figures.json and ratios.png to --out.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from machine import machine

HERE = Path(__file__).parent
NETWORKS = "784-30-10:16:sigmoid,784-128-10:64:sigmoid,784-512-512-10:256,784-2048-2048-10:1024"
CONTENDERS = ("distnn 1", "whole 1", "onednn 1", "distnn 2", "sharded 2", "whole 2", "onednn 2",
              "distnn 8", "torch 1", "torch 2", "torch 8", "sklearn 1", "jax 1")  # fmt: skip
OURS = ("distnn", "sharded", "whole", "onednn", "mkl", "bfloat16")  # see workers.CONTENDERS


def command(contender, worker):
    """How a contender is started."""
    name, processes = contender.split()
    here = Path(sys.executable).parent
    if name in OURS:
        return [shutil.which("mpirun", path=here) or "mpirun", "-n", processes, *worker]
    if processes != "1":
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        return [*launcher, f"--nproc-per-node={processes}", *worker[1:]]
    return worker


def measure(contender, optimizer, networks, seconds, prefix=()):
    """Seconds per step of each network, or None for each if the contender fails."""
    name = contender.split()[0]
    worker = [sys.executable, str(HERE / "workers.py"), name, optimizer, str(seconds), networks]
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1])}
    job = subprocess.run(
        [*prefix, *command(contender, worker)], capture_output=True, text=True, env=environment,
        timeout=600, check=False,
    )  # fmt: skip
    if job.returncode != 0:
        print(f"{contender}: {job.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return [None] * len(networks.split(","))
    return json.loads(job.stdout.strip().splitlines()[-1])


def medians(rounds):
    """The median over rounds of each network's seconds; None where it was never measured."""
    columns = zip(*rounds, strict=True)
    kept = [[one for one in column if one is not None] for column in columns]
    return [statistics.median(column) if column else None for column in kept]


def table(figures, networks):
    """Microseconds of every contender, and how many times faster distnn is than each peer.

    With as many processes; where "sharded" was measured, its ratio stands behind a slash.
    """
    contenders = list(figures)
    lines = [
        "| network, batch | " + " | ".join(contenders) + " |",
        "|---" * (len(contenders) + 1) + "|",
    ]
    for number, network in enumerate(networks):
        cells = []
        for contender in contenders:
            seconds = figures[contender][number]
            cell = "" if seconds is None else f"{seconds * 1e6:,.0f}"
            ours = [figures[one][number] for one in partners(contender, figures)]
            if seconds and all(ours) and ours:
                cell += f" ({' / '.join(f'{seconds / one:.2f}' for one in ours)}x)"
            cells.append(cell)
        lines.append(f"| {network} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def partners(contender, figures):
    """The runs of distnn that a peer is compared with: those with as many processes."""
    name, processes = contender.split()
    return [
        f"{one} {processes}" for one in OURS if name not in OURS and f"{one} {processes}" in figures
    ]


def plot(results, networks, path):
    """Bars: how many times faster distnn is than each peer, per network and optimizer."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(results), figsize=(6 * len(results), 4), squeeze=False)
    for axes, (optimizer, figures) in zip(panels[0], results.items(), strict=True):
        peers = [name for name in figures if partners(name, figures)]
        for place, peer in enumerate(peers):
            ours = partners(peer, figures)[0]
            pairs = zip(figures[peer], figures[ours], strict=True)
            ratios = [a / b if a and b else 0 for a, b in pairs]
            at = [number + place / (len(peers) + 1) for number in range(len(networks))]
            axes.bar(at, ratios, 1 / (len(peers) + 1), label=f"{peer} / {ours}")
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set_yscale("log")
        axes.set_xticks(range(len(networks)), networks, rotation=20, fontsize=7)
        axes.set_title(optimizer)
        axes.set_ylabel("times faster")
        axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main(argv=None):
    parser = argparse.ArgumentParser(description="distnn beside its peers")
    parser.add_argument("--networks", default=NETWORKS)
    parser.add_argument("--contenders", nargs="+", default=CONTENDERS)
    parser.add_argument("--optimizers", nargs="+", default=["sgd", "adam"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks"))
    parser.add_argument("--prefix", nargs="+", default=[], help="a command around each contender")
    flags = parser.parse_args(argv)
    networks, results = flags.networks.split(","), {}
    print(machine())
    for optimizer in flags.optimizers:
        rounds = {contender: [] for contender in flags.contenders}
        for _ in range(flags.rounds):
            for contender, done in rounds.items():
                done.append(
                    measure(contender, optimizer, flags.networks, flags.seconds, flags.prefix)
                )
        results[optimizer] = {name: medians(done) for name, done in rounds.items()}
        print(f"\n{optimizer}, microseconds per step (times slower than distnn)\n")
        print(table(results[optimizer], networks), flush=True)
    flags.out.mkdir(parents=True, exist_ok=True)
    (flags.out / "figures.json").write_text(json.dumps(results, indent=1))
    if any(partners(name, flags.contenders) for name in flags.contenders):
        plot(results, networks, flags.out / "ratios.png")


if __name__ == "__main__":
    main()
