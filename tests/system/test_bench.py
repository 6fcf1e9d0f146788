"""The measuring command: one table, one JSON file, parts that add up to the step."""

import json

import pytest

from launch import mpirun


def test_bench(tmp_path):
    ranks, networks = 2, "20-16-4:12:tanh,10-8-6-3:8"
    layers, file = [[20, 16, 4], [10, 8, 6, 3]], tmp_path / "figures.json"
    flags = ["--networks", networks, "--seconds", "0.1", "--json", str(file)]
    job = mpirun(ranks, *flags, "--optimizer", "momentum", module="distnn.bench")
    assert job.code == 0, job.stderr
    assert job.stdout.count("\n") == 1 + len(layers)  # a heading and a line for each network
    report = json.loads(file.read_text())
    assert report["settings"]["optimizer"] == "momentum"
    assert [figures["layers"] for figures in report["figures"]] == layers
    for figures in report["figures"]:
        assert (figures["ranks"], figures["slices"]) == (ranks, 8)
        assert sum(figures["parts"].values()) == pytest.approx(figures["seconds"], rel=0.5)
        assert figures["samples_per_second"] * figures["seconds"] == pytest.approx(figures["batch"])
        assert figures["ratio"] == figures["seconds"] / figures["limit"] > 1


@pytest.mark.parametrize("networks", ["20-16-4", "20-4:0"])
def test_bad_input(networks):
    job = mpirun(2, "--networks", networks, module="distnn.bench")
    assert job.code == 2
    assert f"--networks: '{networks}'" in job.stderr
    assert len(job.stderr.splitlines()) == 1
