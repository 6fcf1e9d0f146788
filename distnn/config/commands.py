"""The options of all commands but ``train``."""

import dataclasses

from distnn.config.option import option
from distnn.config.options import (
    BLAS,
    MOST_SLICES,
    OPTIMIZERS,
    PRECISIONS,
    REDUCTIONS,
    UPDATES,
    Options,
)

WEIGHTS = (
    "Whose weights: latest, best (by --metric; without validation by training loss), or a path; "
    "auto: best where a validation set chose it, else latest"
)
FORMATS = ("onnx", "torch", "safetensors", "npz")
NETWORK = r"\d{1,9}(-\d{1,9})+:0*[1-9]\d{0,8}(:[a-z-]+)?"


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(Options):
    """The options of ``python -m distnn.evaluate``."""

    run_dir: str = option("", "run", "The run's directory", positional=True)
    checkpoint: str = option("auto", "run", WEIGHTS)
    data: str | None = option(None, "data", "Data set; by default the test set of the run")
    target: str | None = option(None, "data", "Target, as for train; by default that of the run")
    weight: str | None = option(None, "data", "Weights, as for train; by default those of the run")
    json: str | None = option(None, "output", "File to write all figures to")


@dataclasses.dataclass(frozen=True)
class PredictConfig(Options):
    """The options of ``python -m distnn.predict``."""

    run_dir: str = option("", "run", "The run's directory", positional=True)
    checkpoint: str = option("auto", "run", WEIGHTS)
    data: str = option("", "data", "File with the rows: .npz, .npy, IDX, a table")
    output: str = option(
        "", "output", "File to write: .csv or .npy",
        pattern=r"(?s:.*\.(csv|npy))", expects="a name that ends in .csv or .npy",
    )  # fmt: skip
    probabilities: bool = option(
        False, "output", "Write the probability of each class, too; .npy: instead of the class"
    )
    id: str | None = option(None, "output", "Column of the table to copy in front of each row")
    force: bool = option(False, "output", "Replace the file if it is there")


@dataclasses.dataclass(frozen=True)
class ReportConfig(Options):
    """The options of ``python -m distnn.report``."""

    run: list[str] = option(  # noqa: RUF009
        "", "run", "The runs' directories, several to compare", positional=True
    )
    output: str = option("", "output", "HTML file to write", pattern=r"(?s:.*\.html?)",
                         expects="a name that ends in .html")  # fmt: skip
    evaluate: bool = option(
        False, "data", "Apply the networks to their runs' test sets: confusion matrix, residuals"
    )
    bench: str | None = option(
        None, "data", "File of distnn.bench --json: phases of a step, ratio to the limit"
    )
    watch: bool = option(False, "output", "Write the page anew until no run is under way")
    every: int = option(
        5, "output", "With --watch: seconds between two pages", least=1, most=86_400
    )


@dataclasses.dataclass(frozen=True)
class DoctorConfig(Options):
    """``python -m distnn.doctor`` has no options."""


@dataclasses.dataclass(frozen=True)
class BenchConfig(Options):
    """The options of ``python -m distnn.bench``."""

    networks: str = option(
        "784-30-10:16:sigmoid,784-128-10:64:sigmoid,784-512-512-10:256,784-2048-2048-10:1024",
        "network", "Widths, batch size and activation of each, relu if left out",
        pattern=f"{NETWORK}(,{NETWORK})*",
        expects="WIDTHS:BATCH[:ACTIVATION], as 784-128-10:64:tanh, several with commas between",
    )  # fmt: skip
    precision: str = option("float32", "network", "Floating-point numbers", choices=PRECISIONS)
    optimizer: str = option("sgd", "optimization", "Rule of update", choices=OPTIMIZERS)
    slices: int | None = option(
        None, "parallel", "Parts a batch is cut into; auto, the default: as in training",
        least=1, most=MOST_SLICES, auto=True,
    )  # fmt: skip
    reduce: str = option("ordered", "parallel", "How gradients are added up", choices=REDUCTIONS)
    update: str = option("auto", "parallel", "Who updates the weights", choices=UPDATES)
    blas: str = option("auto", "parallel", "Matrix products, as in training", choices=BLAS)
    seconds: float = option(2.0, "run", "About how long each network runs", above=0)
    json: str | None = option(None, "output", "File to write all figures to")


@dataclasses.dataclass(frozen=True)
class ExportConfig(Options):
    """The options of ``python -m distnn.export``."""

    run_dir: str = option("", "run", "The run's directory", positional=True)
    checkpoint: str = option("auto", "run", WEIGHTS)
    format: str = option("onnx", "output", "What is written", choices=FORMATS)
    output: str | None = option(None, "output", "File; by default model.onnx, ... in RUN_DIR")
    force: bool = option(False, "output", "Replace the file if it is there")
