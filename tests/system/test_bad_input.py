"""Whatever a user gets wrong ends with exit code 2 and one line, printed once."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from launch import mpirun

Make = Callable[[Path], list[object]]  # writes the files of a case, gives its arguments


def npz(**changes: Any) -> Make:
    """A data set of 20 rows whose arrays are replaced by `changes` (None: left out)."""

    def make(folder: Path) -> list[object]:
        x = np.linspace(0, 1, 60).reshape(20, 3)
        y = np.arange(20) % 2
        arrays = {"x_train": x, "y_train": y, "x_test": x, "y_test": y} | changes
        np.savez(folder / "set.npz", **{k: v for k, v in arrays.items() if v is not None})
        return ["--data", folder / "set.npz"]

    return make


def text(name: str, content: str, *flags: object) -> Make:
    def make(folder: Path) -> list[object]:
        (folder / name).write_text(content)
        return ["--data", folder / name, *flags]

    return make


def config(content: str) -> Make:
    def make(folder: Path) -> list[object]:
        (folder / "config.toml").write_text(content)
        return [folder / "config.toml"]

    return make


def flags(*words: object) -> Make:
    return lambda folder: list(words)


def holding(value: float) -> np.ndarray:
    x = np.ones((20, 3))
    x[7, 2] = value
    return x


def damaged_npz(folder: Path) -> list[object]:
    path = datasets.classes(folder / "set.npz")
    path.write_bytes(path.read_bytes()[:-400])
    return ["--data", path]


def damaged_idx(folder: Path) -> list[object]:
    (folder / "idx").mkdir()
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (folder / "idx" / f"{name}.gz").write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x05\1\2"))
    return ["--data", folder / "idx"]


def used_run_dir(folder: Path) -> list[object]:
    run_dir = folder / "used"
    made = mpirun(1, "--data", datasets.classes(folder / "set.npz"), "--epochs", 1,
                  "--run-dir", run_dir)  # fmt: skip
    assert made.code == 0, made.stderr
    return ["--data", folder / "set.npz", "--run-dir", run_dir]


CSV = "a,b,kind\n1,2,0\n3,4,1\n5,6,0\n"

# what is wrong: (how it is made, words of the message: the file, the field)
CASES: dict[str, tuple[Make, list[str]]] = {
    "no such file": (flags("--data", "nowhere.npz"), ["nowhere.npz"]),
    "no such folder": (flags("--data", "nowhere"), ["nowhere"]),
    "not an npz": (text("set.npz", "no archive"), ["set.npz"]),
    "damaged npz": (damaged_npz, ["set.npz"]),
    "damaged idx": (damaged_idx, ["train-"]),
    "array missing": (npz(y_train=None), ["set.npz", "y_train"]),
    "test targets missing": (npz(y_test=None), ["set.npz", "y_test"]),
    "different lengths": (npz(y_train=np.zeros(19, int)), ["set.npz", "y_train", "19", "20"]),
    "empty": (npz(x_train=np.ones((0, 3)), y_train=np.zeros(0, int)), ["set.npz", "x_train"]),
    "no features": (npz(x_train=np.ones((20, 0))), ["set.npz", "x_train"]),
    "NaN": (npz(x_train=holding(np.nan)), ["set.npz", "x_train", "7", "2"]),
    "infinity": (npz(x_train=holding(np.inf)), ["set.npz", "x_train", "7", "2"]),
    "NaN in the test set": (npz(x_test=holding(np.nan)), ["set.npz", "x_test", "7"]),
    "NaN in targets": (npz(y_train=holding(np.nan)[:, 2]), ["set.npz", "y_train"]),
    "pickled array": (npz(x_train=np.full((20, 3), {}, object)), ["set.npz", "x_train"]),
    "strings": (npz(x_train=np.full((20, 3), "a")), ["set.npz", "x_train"]),
    "negative label": (npz(y_train=np.arange(20) % 3 - 1), ["set.npz", "y_train", "-1"]),
    "other features in the test set": (npz(x_test=np.ones((20, 4))), ["set.npz", "x_test", "4"]),
    "unknown class in the test set": (npz(y_test=np.full(20, 5)), ["set.npz", "y_test", "5"]),
    "ragged lines": (text("t.csv", CSV + "7,8\n", "--target", "kind"), ["t.csv", "5"]),
    "no such target": (text("t.csv", CSV, "--target", "kinds"), ["t.csv", "kinds", "kind"]),
    "text in a number": (text("t.csv", CSV + "x,8,1\n", "--target", "kind"), ["t.csv", "a", "'x'"]),
    "unknown format": (text("t.xyz", CSV), ["t.xyz"]),
    "unknown flag": (flags("--batchsize", 3), ["--batchsize", "--batch-size"]),
    "unknown key": (config("batchsize = 3\n"), ["config.toml", "batchsize", "batch_size"]),
    "wrong type": (flags("--epochs", "many"), ["--epochs", "many"]),
    "wrong type of a key": (config('epochs = "many"\n'), ["config.toml", "epochs"]),
    "unknown choice": (flags("--optimizer", "adm"), ["--optimizer", "adam"]),
    "batch size 0": (flags("--batch-size", 0), ["--batch-size"]),
    "batch size 0 as a key": (config("batch_size = 0\n"), ["config.toml", "batch_size"]),
    "hidden 0": (flags("--hidden", 0), ["--hidden"]),
    "more ranks than slices": (flags("--slices", 3), ["slices", "3", "4"]),
    "loss that does not fit": (flags("--output", "tanh", "--loss", "cross-entropy"), ["loss"]),
    "damaged config": (config("epochs = = 3\n"), ["config.toml"]),
    "no such config": (flags("nowhere.toml"), ["nowhere.toml"]),
    "used run directory": (used_run_dir, ["used", "--resume"]),
}  # fmt: skip


@pytest.mark.parametrize(("make", "words"), CASES.values(), ids=CASES.keys())
def test_bad_input_is_told_in_one_line(tmp_path: Path, make: Make, words: list[str]) -> None:
    result = mpirun(4, *make(tmp_path), cwd=tmp_path, timeout=20)
    lines = result.stderr.splitlines()
    assert result.code == 2, f"exit code {result.code}\n{result.stdout}\n{result.stderr}"
    assert len(lines) == 1, result.stderr
    assert [word for word in words if word not in lines[0]] == [], lines[0]
    assert re.search(r"; |must be|is not a", lines[0]), "no remedy: " + lines[0]
    assert "Traceback" not in result.stdout + result.stderr
    assert list(tmp_path.glob("runs/*/config.toml")) == [], "a run was started"


@pytest.mark.parametrize("module", ["distnn.evaluate", "distnn.predict"])
def test_a_run_that_is_not_there(tmp_path: Path, module: str) -> None:
    more = ["--data", "rows.npy", "--output", "out.csv"] if module == "distnn.predict" else []
    result = mpirun(2, "nowhere", *more, module=module, cwd=tmp_path, timeout=20)
    assert result.code == 2
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert "nowhere" in result.stderr
