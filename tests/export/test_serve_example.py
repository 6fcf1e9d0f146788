"""The example that serves an exported table: its answers are distnn's predictions."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distnn
from distnn.export.__main__ import export
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.train import train

pytest.importorskip("onnx", reason="pip install 'distnn[onnx]'")
pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
pyarrow = pytest.importorskip("pyarrow", reason="pip install 'distnn[parquet]'")
EXAMPLE = Path(__file__).parents[2] / "examples" / "serve_onnx.py"


def asked(address: str, body: bytes) -> Any:
    request = urllib.request.Request(address, body)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    draw = np.random.default_rng(5)
    kind = draw.integers(3, size=90)
    lines = [
        f"{('Torgersen', 'Dream', 'Biscoe')[k]},{'' if i % 9 == 0 else 38 + 5 * k},{'ACG'[k]}"
        for i, k in enumerate(kind)
    ]
    (folder / "p.csv").write_text("\n".join(["island,bill length,species", *lines]) + "\n")
    comm = Communicator(MPI.COMM_SELF)
    words = ["--data", f"{folder}/p.csv", "--run-dir", f"{folder}/r", "--progress", "off"]
    train(comm, [*words, "--epochs", "5"])
    export(comm, [f"{folder}/r"])
    return folder / "r"


@pytest.fixture
def address(run: Path) -> Iterator[str]:
    command = [sys.executable, str(EXAMPLE), str(run / "model.onnx"), "0"]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, **quiet) as server:
        yield server.stdout.readline().strip()
        server.terminate()


def test_the_example_serves_the_predictions(run: Path, address: str) -> None:
    rows = [
        {"island": "Dream", "bill length": 43.5},
        {"island": None, "bill length": 48.5},
        {"island": "Biscoe", "bill length": None},
    ]
    answer = asked(address, json.dumps(rows).encode())
    model, table = distnn.load(str(run), "latest"), pyarrow.Table.from_pylist(rows)
    assert answer["label"] == model.predict(table).tolist()
    np.testing.assert_allclose(answer["probabilities"], model.predict_proba(table), atol=1e-5)
    for body in (b"no json", b'[{"island": "Dream"}]'):
        with pytest.raises(urllib.error.HTTPError) as caught:
            asked(address, body)
        assert caught.value.code == 400
        assert "error" in json.load(caught.value)
