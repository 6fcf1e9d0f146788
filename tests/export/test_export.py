"""The command, and the formats that hold arrays: what is in the file computes what distnn does."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distnn
from distnn.errors import InputError
from distnn.export import files
from distnn.export.__main__ import export
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.train import train
from launch import mpirun

SHORT = ("--hidden", "6", "5", "--slices", "1", "--batch-size", "16", "--progress", "off",
         "--epochs", "3", "--activation", "elu")  # fmt: skip


def on_one_rank(command: Any, *words: object) -> None:
    command(Communicator(MPI.COMM_SELF), [str(word) for word in words])


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two targets of three columns, one name of which is code."""
    folder = tmp_path_factory.mktemp("houses")
    draw = np.random.default_rng(0)
    X = draw.uniform(1, 9, (120, 3))
    lines = [f"{a:.3f},{b:.3f},{c:.3f},{9e5 * a:.1f},{b / 99:.6f}" for a, b, c in X]
    heading = 'area,age,"x""\nimport os; os.abort()",price,tax'
    (folder / "h.csv").write_text("\n".join([heading, *lines]) + "\n")
    on_one_rank(
        train, "--data", folder / "h.csv", "--target", "price,tax", "--run-dir", folder / "r",
        *SHORT,
    )  # fmt: skip
    np.save(folder / "x.npy", X)
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    on_one_rank(train, "--data", "digits", "--run-dir", folder / "r", *SHORT)
    return folder


def recomputed(arrays: Any, X: np.ndarray) -> np.ndarray:
    """Three layers of elu, from the arrays by their names, by the formula."""
    A = (X - arrays["shift"]) * arrays["scale"]
    for l in range(2):
        Z = A @ arrays[f"layers.{l}.weight"].T + arrays[f"layers.{l}.bias"]
        A = np.where(Z > 0, Z, np.expm1(np.minimum(Z, 0)))
    Z = A @ arrays["layers.2.weight"].T + arrays["layers.2.bias"]
    if "target_scale" in arrays:
        return Z / arrays["target_scale"] + arrays["target_shift"]
    E = np.exp(Z - Z.max(axis=1, keepdims=True))
    return E / E.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_arrays_by_name_give_the_predictions(houses: Path, digits: Path, kind: str) -> None:
    with np.load(Path(distnn.__file__).parent / "data" / "digits.npz") as bundled:
        rows = bundled["x_test"].reshape(-1, 64)[:50]
    for run, X in ((houses / "r", np.load(houses / "x.npy")), (digits / "r", rows)):
        on_one_rank(export, run, "--format", kind)
        arrays, texts = read(run / f"model.{kind}")
        model = distnn.load(str(run), "latest")
        is_house = run.parent == houses
        expected = model.predict(X) if is_house else model.predict_proba(X)
        np.testing.assert_allclose(recomputed(arrays, X), expected, rtol=1e-4, atol=1e-6)
        summary = json.loads((run / "summary.json").read_text())
        assert texts["weights_sha256"] == summary["weights_sha256"]
        assert texts["activation"] == "elu"
        assert json.loads(texts["targets" if is_house else "classes"]) == (
            ["price", "tax"] if is_house else list(range(10))
        )


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and texts of a file."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as found:
            everything = dict(found)
        texts = {k: str(v) for k, v in everything.items() if v.dtype.kind == "U"}
        return {k: v for k, v in everything.items() if k not in texts}, texts
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def test_torch_gives_the_predictions(
    houses: Path, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch", reason="pip install torch")
    with np.load(Path(distnn.__file__).parent / "data" / "digits.npz") as bundled:
        rows = bundled["x_test"].reshape(-1, 64)[:50]
    for run, X in ((houses / "r", np.load(houses / "x.npy")), (digits / "r", rows)):
        capsys.readouterr()
        on_one_rank(export, run, "--format", "torch")
        names: dict[str, Any] = {"__name__": "printed"}
        exec(capsys.readouterr().out, names)  # the lines that it prints are a whole program
        with torch.no_grad():
            found = names["model"](torch.tensor(X, dtype=torch.float32)).numpy()
        model = distnn.load(str(run), "latest")
        expected = model.predict(X) if run.parent == houses else model.predict_proba(X)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_printed_lines_hold_names_as_literals_only(houses: Path) -> None:
    from distnn.export.torch_code import torch_code
    from distnn.training.prediction import Trained

    trained = Trained.open(str(houses / "r"), "latest")
    code = torch_code(trained, 'a"\nimport os\n')
    lines = [line for line in code.splitlines() if line.startswith("import")]
    assert lines == ["import torch"]
    compile(code, "printed", "exec")


def test_a_file_that_is_there_is_replaced_only_by_force(houses: Path) -> None:
    output = houses / "mine.npz"
    output.write_bytes(b"of somebody else")
    given = (houses / "r", "--format", "npz", "--output", output)
    with pytest.raises(InputError, match=r"mine\.npz: is there already; .* --force"):
        on_one_rank(export, *given)
    assert output.read_bytes() == b"of somebody else"
    on_one_rank(export, *given, "--force")
    with np.load(output) as found:
        assert found["layers.0.weight"].shape == (6, 3)


def test_what_cannot_be_written(houses: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"no/m\.npz: cannot be written: No such file"):
        on_one_rank(export, houses / "r", "--format", "npz", "--output", houses / "no" / "m.npz")
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    for kind, remedy in (("onnx", r"pip install 'distnn\[onnx\]'"), ("torch", "safetensors")):
        with pytest.raises(InputError, match=f"--format {kind}: the package {kind} .*{remedy}"):
            on_one_rank(export, houses / "r", "--format", kind, "--output", houses / "m")
    assert not (houses / "m").exists()


def test_rows_that_a_program_prepares_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, digits: Path
) -> None:
    X, T = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3
    trainer = distnn.Trainer(
        distnn.Network([4, 3]), slices=1, run_dir=str(tmp_path / "r"), comm=MPI.COMM_SELF
    )
    trainer.fit(X, T, epochs=1)
    for run, told in ((digits / "r", 0), (tmp_path / "r", 1)):
        caplog.clear()
        on_one_rank(export, run, "--format", "npz", "--output", tmp_path / f"{told}.npz")
        assert caplog.text.count("a program trained it on rows as it gave them") == told


def test_ranks_write_one_file_and_say_so_once(digits: Path) -> None:
    output = digits / "by-ranks.npz"
    given = (digits / "r", "--format", "npz", "--output", output)
    done = mpirun(2, *given, module="distnn.export")
    assert (done.code, done.stdout) == (0, f"written to {output}\n")
    again = mpirun(2, *given, module="distnn.export")
    assert again.code == 2
    assert again.stderr.count("is there already") == 1
