"""Train on real diamonds as a table: text columns, gaps, log price; one hash for any ranks.

    python tests/benchmarks/tables.py DIAMONDS.npz [FOLDER]

The npz file holds x_train, y_train, x_test, y_test and feature_names, with cut, color and clarity
one-hot encoded. They are turned back to text, written as CSV and as Parquet, whole and with 5 % of
the numbers removed; each is trained on 1, 2 and 3 ranks. Beside each stands scikit-learn, where it
is installed, without the cosine schedule, which it has not.
"""

import csv
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

# tanh: of a few diamonds length, width and height are recorded as 0; outputs of relu there grow
# without bound, and one price that is ten times too high costs 0.16 of R2.
SETTINGS = [
    "--target", "price", "--target-transform", "log", "--hidden", "128", "128", "--activation",
    "tanh", "--epochs", "30", "--batch-size", "256", "--slices", "6", "--learning-rate", "0.003",
    "--schedule", "cosine", "--progress", "off",
]  # fmt: skip


def columns_of(arrays: dict[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    """The columns by name, groups of one-hot features as one column of text."""
    X, names = arrays[f"x_{part}"], [str(name) for name in arrays["feature_names"]]
    columns: dict[str, np.ndarray] = {}
    groups: dict[str, list[int]] = {}
    for j, name in enumerate(names):
        if "_" in name:
            groups.setdefault(name.split("_")[0], []).append(j)
        else:
            columns[name] = X[:, j].astype(np.float64).round(2)
    for group, members in groups.items():
        texts = np.array([names[j].split("_", 1)[1] for j in members])
        columns[group] = texts[X[:, members].argmax(axis=1)]
    return columns | {"price": arrays[f"y_{part}"].astype(np.int64)}


def write(folder: Path, part: str, columns: dict[str, np.ndarray], gaps: float) -> None:
    """One part as CSV and as Parquet, with a share of the numbers removed."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    draw = np.random.default_rng(0 if part == "train" else 1)
    lists = {}
    for name, values in columns.items():
        removed = np.zeros(len(values), bool)
        if values.dtype.kind == "f":
            removed = draw.random(len(values)) < gaps
        lists[name] = [
            None if gone else v for v, gone in zip(values.tolist(), removed, strict=True)
        ]
    with (folder / f"{part}.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(lists)
        out.writerows(zip(*lists.values(), strict=True))
    parquet.write_table(pa.table(lists), folder / f"{part}.parquet", row_group_size=10_000)


def train(folder: Path, ending: str, ranks: int) -> tuple[str, float, float]:
    """Hash, R2 of the price on the test set, and seconds."""
    run_dir = folder / f"run-{ending}-{ranks}"
    files = ("--data", folder / f"train.{ending}", "--test-data", folder / f"test.{ending}")
    command = ["mpirun", "-n", ranks, sys.executable, "-m", "distnn.train", *files]
    command += ["--run-dir", run_dir, *SETTINGS]
    started = time.perf_counter()
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    summary = json.loads((run_dir / "summary.json").read_text())
    return summary["weights_sha256"], summary["test_r2"], seconds


def peer(folder: Path) -> tuple[float, float]:
    """R2 and seconds of scikit-learn's MLPRegressor with the same preparation and settings."""
    import pyarrow.parquet as parquet
    from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.metrics import r2_score
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

    started = time.perf_counter()
    tables = [parquet.read_table(folder / f"{part}.parquet") for part in ("train", "test")]
    numbers, texts = range(6), range(6, 9)
    gaps = any(column.null_count for column in tables[0].columns)
    impute = SimpleImputer(strategy="median", add_indicator=gaps)
    to_float = FunctionTransformer(lambda X: X.astype(np.float64))
    columns = ColumnTransformer([
        ("numbers", make_pipeline(to_float, impute, StandardScaler()), list(numbers)),
        ("texts", OneHotEncoder(sparse_output=False), list(texts)),
    ])  # fmt: skip
    network = MLPRegressor(
        hidden_layer_sizes=(128, 128), activation="tanh", batch_size=256, max_iter=30, alpha=0.0,
        learning_rate_init=0.003, n_iter_no_change=30, random_state=0,
    )  # fmt: skip
    log_price = TransformedTargetRegressor(network, transformer=StandardScaler())
    model = make_pipeline(columns, log_price)
    (X, y), (X_test, y_test) = (
        (np.column_stack([t[name].to_numpy().astype(object) for name in t.column_names[:-1]]),
         t["price"].to_numpy()) for t in tables
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that 30 epochs are no convergence
        model.fit(X, np.log(y))
    r2 = r2_score(y_test, np.exp(model.predict(X_test)))
    return r2, time.perf_counter() - started


def main() -> None:
    """Print one line for each run."""
    with np.load(sys.argv[1]) as file:
        arrays = dict(file)
    base = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp())
    for gaps in (0.0, 0.05):
        folder = base / f"gaps-{gaps:g}"
        folder.mkdir(parents=True, exist_ok=True)
        for part in ("train", "test"):
            write(folder, part, columns_of(arrays, part), gaps)
        for ending in ("csv", "parquet"):
            for ranks in (1, 2, 3):
                sha, r2, seconds = train(folder, ending, ranks)
                what = f"{gaps:5.0%} removed, {ending:7}, {ranks} ranks"
                print(f"{what}: R2 {r2:.4f} in {seconds:.1f} s  {sha[:16]}", flush=True)
        try:
            r2, seconds = peer(folder)
        except ImportError:
            print("scikit-learn is not installed: pip install 'distnn[peers]'")
        else:
            print(f"{gaps:5.0%} removed, scikit-learn    : R2 {r2:.4f} in {seconds:.1f} s")


if __name__ == "__main__":
    main()
