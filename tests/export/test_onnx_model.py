"""ONNX: onnxruntime predicts from raw columns what distnn predicts."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distnn
from distnn.errors import InputError
from distnn.nn.outputs import OUTPUTS
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.predict import predict
from distnn.train import train
from distnn.training.model import Model
from distnn.training.prediction import Trained

onnx = pytest.importorskip("onnx", reason="pip install 'distnn[onnx]'")
runtime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
onnx_model = pytest.importorskip("distnn.export.onnx_model").onnx_model

SHORT = ("--hidden", "7", "--slices", "1", "--batch-size", "16", "--progress", "off",
         "--epochs", "5", "--checkpoint-every", "5")  # fmt: skip
Session = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def trained(run_dir: Path, *words: object) -> tuple[Session, Model, Any]:
    """A run in onnxruntime, in distnn, and its model of ONNX."""
    train(Communicator(MPI.COMM_SELF), [str(w) for w in (*words, "--run-dir", run_dir, *SHORT)])
    model = onnx_model(Trained.open(str(run_dir), "latest"))
    session = runtime.InferenceSession(model.SerializeToString())

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, inputs), strict=True))

    return run, distnn.load(str(run_dir), "latest"), model


def write_csv(path: Path, columns: dict[str, Any]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def text_table(n: int) -> dict[str, Any]:
    """Numbers with and without gaps, text with gaps, numbers as categories, names of classes."""
    draw = np.random.default_rng(3)
    size, weight = draw.normal(50, 9, n), draw.normal(4e3, 800, n)
    island = draw.choice(["Biscoe", "Dream", "Île d'été"], n)
    zips = draw.choice([20230101, 20230102, 20230103], n)  # one and the same in float32
    kind = np.where(size > 52, "Gentoo", np.where(island == "Dream", "Chinstrap", "Adelie"))
    kind = np.where(zips == 20230102, "Adelie", kind)
    return {
        "island": np.where(draw.random(n) < 0.1, draw.choice(["NA", "", "None"], n), island),
        "label": [f"{v:.2f}" if draw.random() > 0.15 else "" for v in size],  # as an output's name
        "zip": zips,
        "body mass": [f"{v:.1f}" for v in weight],
        "species": kind,
    }


def as_inputs(table: dict[str, Any]) -> dict[str, np.ndarray]:
    numbers = [float(v or "nan") for v in table["label"]]
    return {
        "island": np.array(table["island"], object)[:, None],
        "label": np.array(numbers, np.float32)[:, None],
        "zip": np.array(table["zip"], np.float64)[:, None],
        "body mass": np.array(table["body mass"], np.float32)[:, None],
    }


def test_text_columns_with_gaps_and_classes_by_name(tmp_path: Path) -> None:
    table = text_table(300)
    write_csv(tmp_path / "t.csv", table)
    run, *_ = trained(
        tmp_path / "r", "--data", tmp_path / "t.csv", "--categorical", "zip",
        "--learning-rate", 0.03,
    )  # fmt: skip
    new = {name: list(values[:80]) for name, values in text_table(300).items()}
    new["island"][:3], new["zip"][3:5] = ["Atlantis", "nan", "<NA>"], [7, 20230104]  # unseen
    found = run(as_inputs(new))
    del new["species"]
    rows = by_command(tmp_path / "r", new, "--probabilities")
    expected = np.array([row[1:] for row in rows], float)
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5, rtol=0)
    assert found["label_2"].tolist() == [row[0] for row in rows]
    assert len(set(found["label_2"].tolist())) == 3


def by_command(run_dir: Path, table: dict[str, Any], *words: str) -> list[list[str]]:
    """What ``python -m distnn.predict`` writes for a table as CSV."""
    data, output = run_dir.with_suffix(".csv"), run_dir.with_suffix(".out.csv")
    write_csv(data, table)
    given = [str(run_dir), "--data", str(data), "--output", str(output), "--force", *words]
    predict(Communicator(MPI.COMM_SELF), given)
    with output.open(newline="") as file:
        return list(csv.reader(file))[1:]


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
def test_two_targets_in_their_own_units_and_numbers_with_gaps(
    tmp_path: Path, precision: str
) -> None:
    draw = np.random.default_rng(0)
    area, age, floor = draw.uniform(30, 200, 150), draw.uniform(0, 80, 150), draw.normal(size=150)
    X = np.c_[area, age, floor]
    X[draw.random(150) < 0.2, 1] = np.nan
    text = [["" if v != v else repr(float(v)) for v in column] for column in X.T]
    targets = {"price": 2e5 + 3e3 * area, "tax": 0.5 - 1e-3 * age}
    write_csv(tmp_path / "h.csv", dict(zip("abc", text, strict=True)) | targets)
    run, model, _ = trained(
        tmp_path / "r", "--data", tmp_path / "h.csv", "--target", "price,tax",
        "--precision", precision, "--target-transform", "log",
    )  # fmt: skip
    found = run({"X": X.astype(model.network.dtype)})["prediction"]
    # a sum in another order may round to the next bfloat16, which is 2^-8 away
    rtol = 1e-3 if precision == "bfloat16" else 1e-5
    np.testing.assert_allclose(found, model.predict(X), rtol=rtol)
    assert found.dtype == np.float64


def arrays(path: Path, classes: int, n: int = 120) -> np.ndarray:
    x = np.random.default_rng(1).normal(3, 2, size=(n, 4)).astype(np.float32)
    np.savez(path, x_train=x, y_train=np.digitize(x[:, 0], np.linspace(2, 4, classes - 1)))
    return x


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("activation", [name for name in OUTPUTS if name != "softmax"])
def test_every_activation(tmp_path: Path, activation: str, precision: str) -> None:
    x = 20 * arrays(tmp_path / "a.npz", 3)
    run, model, _ = trained(
        tmp_path / "r", "--data", tmp_path / "a.npz", "--activation", activation,
        "--precision", precision,
    )  # fmt: skip
    found = run({"X": x.astype(precision)})
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(x), atol=1e-5)
    assert np.array_equal(found["label"], model.predict(x))
    assert found["label"].dtype == np.int64


def test_a_single_sigmoid_output_gives_two_probabilities(tmp_path: Path) -> None:
    x = arrays(tmp_path / "a.npz", 2)
    run, model, _ = trained(tmp_path / "r", "--data", tmp_path / "a.npz", "--output", "sigmoid")
    found = run({"X": x})
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(x), atol=1e-6)
    assert np.array_equal(found["label"], model.predict(x))
    assert set(found["label"].tolist()) == {0, 1}


def test_outputs_that_are_no_probabilities_are_called_scores(tmp_path: Path) -> None:
    x = arrays(tmp_path / "a.npz", 3)
    run, model, _ = trained(
        tmp_path / "r", "--data", tmp_path / "a.npz", "--output", "tanh",
        "--task", "classification", "--loss", "squared-error",
    )  # fmt: skip
    found = run({"X": x})
    np.testing.assert_allclose(found["scores"], model.predict_proba(x), atol=1e-5)


def test_a_network_beyond_the_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays(tmp_path / "a.npz", 3)
    trained(tmp_path / "r", "--data", tmp_path / "a.npz")
    large = Trained.open(str(tmp_path / "r"), "latest")
    size = 4 * (5 * 7 + 8 * 3)
    monkeypatch.setattr("distnn.export.onnx_model.MOST_BYTES", size - 1)
    with pytest.raises(InputError, match=r"59 weights, .* 2 GiB; give --format safetensors"):
        onnx_model(large)
    monkeypatch.setattr("distnn.export.onnx_model.MOST_BYTES", size)
    assert onnx_model(large).graph.node


def test_a_table_without_a_header_has_its_columns_by_number(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    kind, size = draw.choice([7, 8], 100), draw.normal(size=100)
    y = size + (kind == 8)
    lines = [f"{k},{s:.4f},{v:.4f}" for k, s, v in zip(kind, size, y, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    run, model, _ = trained(
        tmp_path / "r", "--data", tmp_path / "t.csv", "--precision", "float64",
        "--categorical", "0",
    )  # fmt: skip
    given = {"column_0": kind[:, None].astype(float), "column_1": size[:, None]}
    expected = model.predict(np.c_[kind, size])
    np.testing.assert_allclose(run(given)["prediction"][:, 0], expected, rtol=1e-9)


def test_shapes_are_inferred_and_names_stand_in_the_metadata(tmp_path: Path) -> None:
    arrays(tmp_path / "a.npz", 3)
    _, model, exported = trained(tmp_path / "r", "--data", tmp_path / "a.npz")
    inferred = onnx.shape_inference.infer_shapes(exported, strict_mode=True, data_prop=True)
    shapes = {
        value.name: [d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim]
        for value in [*inferred.graph.value_info, *inferred.graph.output]
    }
    assert shapes["gemm"] == ["rows", 7]
    assert shapes["probabilities"] == ["rows", 3]
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in exported.graph.initializer}
    assert np.array_equal(constants["layers.0.weight"], model.network.weights[0][1:].T)
    assert np.array_equal(constants["layers.1.bias"], model.network.weights[1][0])
    facts = {entry.key: entry.value for entry in exported.metadata_props}
    assert facts["task"] == "classification"
    assert facts["classes"] == "[0, 1, 2]"
