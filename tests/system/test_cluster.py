"""Training over several hosts: the same bits on every layout, one gradient on the wire.

The hosts are network namespaces; see cluster.py for what that needs.
"""

import itertools
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
from cluster import Cluster, why_not

from launch import run_metrics, run_summary, train

REASON = why_not()
pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(REASON), reason=REASON)]

# Flags, and the ranks of each host. There are 203 rows: the last batch of an epoch is short.
CASES: dict[str, tuple[str, list[list[int]]]] = {
    "adam, clipping": (
        "--slices 4 --clip-norm 0.2 --batch-size 150", [[1, 1, 1, 1], [2, 1, 1]]
    ),
    "momentum, columns cut": (
        "--slices 4 --optimizer momentum --hidden 2100 200 --batch-size 100", [[3, 1], [1, 1, 1]]
    ),
    "adam, odd slices, dropout": (
        "--slices 7 --dropout 0.3 --hidden 33 17 --batch-size 50", [[1] * 5, [3, 1, 2]]
    ),
    "bfloat16, adam, clipping": (
        "--wire bfloat16 --slices 7 --clip-norm 0.2 --batch-size 50", [[2, 2], [1, 1, 1]]
    ),
    "lamb, growing batches, average": (
        "--slices 4 --optimizer lamb --batch-size 150 --base-batch 30 --batch-warmup-epochs 1 "
        "--average 0.9", [[1, 1, 1, 1], [2, 1, 1]],
    ),
    "sgd, eight hosts": ("--slices 8 --optimizer sgd --batch-size 150", [[1] * 8, [1, 1]]),
}  # fmt: skip


IS_ALL = os.environ.get("DISTNN_FAULTS") == "all"  # else links that go down are left out


@pytest.fixture(scope="module")
def hosts() -> Iterator[Cluster]:
    with Cluster(8) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def two_hosts() -> Iterator[Cluster]:
    with Cluster(2) as cluster:
        yield cluster


@pytest.fixture
def lossy_hosts() -> Iterator[Cluster]:
    """Four hosts of a test's own, of which one is lost."""
    with Cluster(4) as cluster:
        yield cluster


def train_on(cluster: Cluster, ranks: Sequence[int], *args: object) -> None:
    """A training run that must succeed."""
    result = cluster.mpirun(ranks, "-m", "distnn.train", *args)
    assert result.code == 0, f"exit code {result.code}\n{result.stdout}\n{result.stderr}"


def outcome(run_dir: Path) -> dict[str, Any]:
    """What must not depend on the layout."""
    summary = run_summary(run_dir)
    names = ("weights_sha256", "optimizer_sha256", "steps", "train_loss", "test_accuracy")
    return {name: summary[name] for name in names} | {"metrics": run_metrics(run_dir)}


@pytest.mark.parametrize(("flags", "layouts"), CASES.values(), ids=CASES.keys())
def test_the_same_bits_on_every_layout(
    hosts: Cluster, tmp_path: Path, flags: str, layouts: list[list[int]]
) -> None:
    data = datasets.classes(tmp_path / "classes.npz")
    args = ["--data", data, "--epochs", 2, *flags.split()]
    train(1, *args, "--run-dir", tmp_path / "one")
    expected = outcome(tmp_path / "one")
    for ranks, update in zip(layouts, itertools.cycle(["sharded", "rank0"]), strict=False):
        run_dir = tmp_path / "-".join([*map(str, ranks), update])
        train_on(hosts, ranks, *args, "--update", update, "--run-dir", run_dir)
        summary = run_summary(run_dir)
        assert (summary["ranks"], summary["nodes"]) == (sum(ranks), len(ranks))
        assert summary["update"] == update
        assert outcome(run_dir) == expected


@pytest.mark.parametrize(
    ("ranks", "update", "wire", "bytes_each"),
    [
        ([1, 1], "rank0", "float32", 4),
        ([2, 2], "sharded", "float32", 4),
        ([2, 2], "sharded", "bfloat16", 2),
    ],
)
def test_one_gradient_goes_over_the_wire(
    two_hosts: Cluster, tmp_path: Path, ranks: list[int], update: str, wire: str, bytes_each: int
) -> None:
    """A host sends one vector of the network's size per step, however many ranks it has."""
    args = ["--hidden", 256, 256, "--batch-size", 256, "--update", update, "--optimizer", "sgd"]
    args += ["--wire", wire]
    weights = 65 * 256 + 257 * 256 + 257 * 10
    sent = {}
    for epochs in (1, 4):
        before = [two_hosts.sent(host) for host in (1, 2)]
        run_dir = tmp_path / f"{epochs}"
        train_on(two_hosts, ranks, *args, "--epochs", epochs, "--run-dir", run_dir)
        after = [two_hosts.sent(host) for host in (1, 2)]
        steps = run_summary(run_dir)["steps"]
        sent[steps] = [b - a for a, b in zip(before, after, strict=True)]
    (few, first), (many, last) = sorted(sent.items())
    per_step = [(b - a) / (many - few) for a, b in zip(first, last, strict=True)]
    vectors = [count / (bytes_each * weights) for count in per_step]
    print(
        json.dumps(
            {"ranks": ranks, "update": update, "wire": wire, "vectors sent per step": vectors}
        )
    )
    assert all(0.99 < sent < 1.15 for sent in vectors), vectors


def test_a_run_goes_on_with_other_hosts(hosts: Cluster, tmp_path: Path) -> None:
    data = datasets.classes(tmp_path / "classes.npz")
    args = ["--data", data, "--slices", 4, "--update", "sharded", "--batch-size", 50]
    train(1, *args, "--epochs", 3, "--run-dir", tmp_path / "straight")
    for epochs, ranks in enumerate(([1, 1, 1, 1], [2, 1, 1], [3]), 1):
        train_on(hosts, ranks, *args, "--epochs", epochs, "--run-dir", tmp_path / "run", "--resume")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "straight")


@pytest.mark.parametrize("is_killed", [True, False][: 2 if IS_ALL else 1])
def test_a_lost_host_ends_the_job_and_others_go_on(
    lossy_hosts: Cluster, tmp_path: Path, is_killed: bool
) -> None:
    data = datasets.classes(tmp_path / "classes.npz")
    flags = ["--data", data, "--slices", 4, "--batch-size", 20, "--checkpoint-every", 20]
    train(1, *flags, "--epochs", 40, "--run-dir", tmp_path / "one")
    args = [*flags, "--epochs", 40, "--run-dir", tmp_path / "run", "--resume"]
    stall = 5
    process = lossy_hosts.start([1] * 4, "-m", "distnn.train", *args, "--stall-timeout", stall)
    begun = time.perf_counter()
    while len(metrics_so_far(tmp_path / "run")) < 8 and time.perf_counter() < begun + 40:
        time.sleep(0.05)
    lossy_hosts.unplug(3)
    if is_killed:
        lossy_hosts.kill(3)
    lost = time.perf_counter()
    result = lossy_hosts.finish(process, lost, 60)
    assert result.code not in (0, 2, 3, 75)
    print(f"\na lost host: ended after {result.seconds:.1f} s\n{result.stderr}")
    assert result.seconds < stall + 2, result
    assert "rank 2 on host3: no message for" in result.stderr
    done = len(metrics_so_far(tmp_path / "run"))
    assert 0 < done < 40
    lossy_hosts.kill(3)
    train_on(lossy_hosts, [1, 1, 0, 1], *args)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "one")


def metrics_so_far(run_dir: Path) -> list[str]:
    return run_metrics(run_dir) if (run_dir / "metrics.jsonl").exists() else []


def test_the_doctor_looks_at_both_hosts(two_hosts: Cluster) -> None:
    result = two_hosts.mpirun([2, 1], "-m", "distnn.doctor")
    assert result.code == 0, result.stderr
    assert result.stderr == ""
    assert "3 ranks on 2 nodes" in result.stdout
    assert "node 1 (host2): ranks 2 to 2" in result.stdout
    speed = [line for line in result.stdout.splitlines() if line.startswith("node 0 to node 1: ")]
    assert 50 < float(speed[0].split(", ")[1].removesuffix(" MB/s")) < 126  # a link of 1 Gbit/s
    assert result.seconds < 15
