"""The table of options: each field below is a flag, a key of a config file and a keyword.

Another option is another line here, and the code that uses it.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, Literal, Self

from distnn.checks import LARGEST_COUNT, LARGEST_SEED, from_text, nearest, number
from distnn.config.option import option, options_of
from distnn.errors import InputError

# The names stand here, too, because config/ and nn/ do not import each other; a test compares them.
ACTIVATIONS = (
    "sigmoid", "tanh", "relu", "leaky-relu", "elu", "gelu", "softplus", "identity",
)  # fmt: skip
OUTPUTS = ("softmax", *ACTIVATIONS)
LOSSES = (
    "cross-entropy", "binary-cross-entropy", "half-squared-error", "squared-error",
    "mean-absolute-error", "huber",
)  # fmt: skip
OPTIMIZERS = (
    "sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "nadamw", "lars", "lamb",
    "muon",
)  # fmt: skip
SCHEDULES = ("constant", "step", "linear", "cosine")
RATE_SCALINGS = ("linear", "sqrt")
INITIALIZERS = ("glorot", "he", "lecun", "normal")
PRECISIONS = ("float32", "float64", "bfloat16")
TASKS = ("classification", "regression")
DELIMITERS = ("comma", "semicolon", "tab", "bar", "space")
REDUCTIONS = ("ordered", "mpi")
WIRES = ("float32", "bfloat16")
UPDATES = ("auto", "rank0", "sharded")
BLAS = ("auto", "numpy", "onednn", "mkl")
METRICS = ("loss", "accuracy", "balanced-accuracy", "f1", "auc", "rmse", "mae", "r2")
CLASS_WEIGHTS = ("balanced",)
PROGRESS = ("auto", "bar", "lines", "off")
# Where a program gives what is an option of the commands, but no keyword of `Trainer`: by group.
ELSEWHERE = {
    "data": "give it to fit(...) or distnn.prepare(...)",
    "network": "give it to Network(...)",
    "optimization": "give it to the optimizer, as Adam(0.001)",
    "output": "only the commands have it",
}
ARRAYS = "arrays"  # in place of a path, where the rows are a program's own
NO_PATHS = ("digits", ARRAYS)
MOST_SLICES = 2**16
MOST_GROWING = 1000  # epochs in which the batch size changes


@dataclasses.dataclass(frozen=True)
class Options:
    """What the dataclasses below have in common."""

    def to_dict(self) -> dict[str, Any]:
        """The options by name, as JSON can hold them."""
        return {name: getattr(self, name) for name in options_of(type(self))}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The options that ``to_dict`` gave."""
        return cls(**values)

    def check(self) -> None:
        """Check every value; raises an InputError that names the option."""
        for name, one in options_of(type(self)).items():
            one.checked(getattr(self, name), name)

    def with_full_paths(self) -> Self:
        """The same with the paths of files in full, so that they hold in any directory."""
        names = [name for name, one in options_of(type(self)).items() if one.is_path]
        given = {name: getattr(self, name) for name in names}
        full = {
            name: os.path.abspath(p)
            for name, p in given.items()
            if p and p not in NO_PATHS and share_of(p) is None
        }
        return dataclasses.replace(self, **full)


@dataclasses.dataclass(frozen=True)
class TrainConfig(Options):
    """The options of ``python -m distnn.train``. None: chosen later, from the data or the ranks.

    ``given`` holds the names that a flag, a config file or a keyword set; it is no option itself.
    """

    data: str = option(
        "digits",
        "data",
        "digits, or a path: .npz, .h5, folder of .npy or IDX files, .csv, .tsv (.gz), "
        ".parquet, folder of such tables",
        is_path=True,
    )
    test_data: str | None = option(None, "data", "A second file, with the test set", is_path=True)
    target: str | None = option(
        None, "data", "Target column (its name, or its number from 0 on without a header), "
        "several as price,tax; or name of the target array",
    )  # fmt: skip
    task: str | None = option(
        None, "data", "What the targets are; by default deduced", choices=TASKS
    )
    drop: str | None = option(None, "data", "Columns of a table to leave out, as id,date")
    categorical: str | None = option(
        None, "data", "Columns of numbers that are categories, as zip,month"
    )
    missing: str = option(
        "impute", "data", "Gaps in a table: filled by the median and marked, or refused",
        choices=("impute", "refuse"),
    )  # fmt: skip
    target_transform: str | None = option(
        None, "data", "Train on the logarithm of positive targets", choices=("log",)
    )
    window: int | None = option(
        None, "data", "Rows of a window of a training set that is not held in memory but read "
        "anew in every epoch; 0: it is held; auto: as the file's size says", least=0,
        most=LARGEST_COUNT, auto=True,
    )  # fmt: skip
    delimiter: str | None = option(
        None, "data", "Between the fields of a csv file; by default found", choices=DELIMITERS
    )
    weight: str | None = option(
        None, "data", "Column or array with a weight for each row: its share of loss and metrics"
    )
    validation: str | None = option(
        None, "data", "Validation set: a share of the rows, as 0.1, or a file", is_path=True
    )
    class_weight: str | None = option(
        None, "data", "balanced: every class weighs the same in training", choices=CLASS_WEIGHTS,
        trainer=True,
    )  # fmt: skip
    label_smoothing: float = option(
        0.0, "data", "Share of each label that is spread over all classes in training", least=0,
        below=1, trainer=True,
    )  # fmt: skip
    hidden: list[int] = option(  # noqa: RUF009
        [64], "network", "Widths of the hidden layers, as 128 64", least=1, most=LARGEST_COUNT
    )
    activation: str = option(
        "relu", "network", "Activation of the hidden layers", choices=ACTIVATIONS
    )
    init: str | None = option(
        None, "network", "Initial weights; by default from the activation", choices=INITIALIZERS
    )
    output: str | None = option(
        None, "network", "Activation of the output layer; by default from the task",
        choices=OUTPUTS,
    )  # fmt: skip
    loss: str | None = option(None, "network", "Loss; by default from the task", choices=LOSSES)
    dropout: float = option(
        0.0, "network", "Share of hidden units dropped in training", least=0, below=1
    )
    precision: str = option(
        "float32", "network", "Floating-point numbers; bfloat16: of the factors of matrix "
        "products, all else float32", choices=PRECISIONS,
    )  # fmt: skip
    optimizer: str = option("adam", "optimization", "Rule of update", choices=OPTIMIZERS)
    learning_rate: float | None = option(
        None, "optimization", "Learning rate; by default the optimizer's own", above=0
    )
    momentum: float | None = option(
        None, "optimization", "Momentum; by default the optimizer's own", least=0, below=1
    )
    weight_decay: float | None = option(
        None, "optimization",
        "Weight decay; by default the optimizer's own: see nn/optimizers", least=0,
    )  # fmt: skip
    clip_norm: float | None = option(
        None, "optimization", "Largest norm of the gradient; off by default", above=0, trainer=True
    )
    schedule: str = option(
        "constant", "optimization", "Course of the learning rate", choices=SCHEDULES, trainer=True
    )
    warmup: int = option(
        0, "optimization", "Steps of linear warm-up in front", least=0, most=LARGEST_COUNT,
        trainer=True,
    )  # fmt: skip
    warmup_epochs: float = option(
        0.0, "optimization", "The same in epochs; the longer of both counts", least=0, trainer=True
    )
    scale_learning_rate: str | None = option(
        None, "optimization", "Multiply the learning rate by batch size / base batch, or by its "
        "square root; off by default", choices=RATE_SCALINGS, trainer=True,
    )  # fmt: skip
    base_batch: int = option(
        64, "optimization", "The batch size that the learning rate is for", least=1,
        most=LARGEST_COUNT, trainer=True,
    )  # fmt: skip
    batch_warmup_epochs: int = option(
        0, "optimization", "Epochs in which the batch grows from --base-batch to --batch-size",
        least=0, most=MOST_GROWING, trainer=True,
    )  # fmt: skip
    average: float | None = option(
        None, "optimization", "Average the weights with this factor, as 0.999, and evaluate and "
        "predict with the average; off by default", above=0, below=1, trainer=True,
    )  # fmt: skip
    batch_size: int = option(
        64, "optimization", "Items of a batch, over all ranks together", least=1,
        most=LARGEST_COUNT, trainer=True,
    )  # fmt: skip
    epochs: int = option(
        20, "optimization", "Passes over the training set", least=1, most=LARGEST_COUNT,
        on_resume="grows",
    )  # fmt: skip
    metric: str = option(
        "loss", "optimization", "What is watched on the validation set", choices=METRICS,
        trainer=True,
    )  # fmt: skip
    patience: int | None = option(
        None, "optimization", "End after N epochs without a better --metric; off by default",
        least=1, most=LARGEST_COUNT, trainer=True,
    )  # fmt: skip
    seed: int = option(
        0, "optimization", "What everything random is drawn from", least=0, most=LARGEST_SEED,
        trainer=True,
    )  # fmt: skip
    shuffle: bool = option(
        True, "optimization", "Another order of the rows in every epoch", trainer=True
    )
    slices: int | None = option(
        None, "parallel", "Parts a batch is cut into; auto, the default: 8 (no more than it has "
        "items), or the number of ranks where that is more", least=1, most=MOST_SLICES, auto=True,
        trainer=True,
    )  # fmt: skip
    reduce: str = option(
        "ordered", "parallel", "Sum of gradients: same bits on any number of ranks, or MPI's own",
        choices=REDUCTIONS, trainer=True,
    )  # fmt: skip
    wire: str = option(
        "float32", "parallel", "Gradients as they travel and are added up: as computed, or rounded "
        "to bfloat16, which halves the bytes between machines", choices=WIRES, trainer=True,
    )  # fmt: skip
    update: str = option(
        "auto", "parallel", "Who updates the weights; auto: each rank a part, or rank 0 where "
        "that is quicker", choices=UPDATES, on_resume="free", trainer=True,
    )  # fmt: skip
    blas: str = option(  # another one may change bits, as another machine may: it is reported
        "auto", "parallel", "What makes matrix products; auto: the quickest that is installed",
        choices=BLAS, on_resume="free", trainer=True,
    )  # fmt: skip
    stall_timeout: float = option(
        600.0, "parallel", "Seconds without any movement after which the job is ended", above=0,
        on_resume="free", trainer=True,
    )  # fmt: skip
    run_dir: str | None = option(
        None, "run", "The run's directory; by default $DISTNN_RUN_DIR, else runs/<time>-<data>",
        on_resume="unrecorded", trainer=True,
    )  # fmt: skip
    resume: bool = option(
        False, "run", "Go on with the run in the run directory, if there is one",
        on_resume="unrecorded", trainer=True,
    )  # fmt: skip
    allow_changed_data: bool = option(
        False, "run", "With --resume: go on although the data have changed since the run began",
        on_resume="unrecorded", trainer=True,
    )  # fmt: skip
    checkpoint_every: str = option(
        "1", "run", "N epochs, or Ns for N steps", on_resume="free", trainer=True,
        pattern="[1-9][0-9]{0,8}s?", expects="N (epochs) or Ns (steps), as 1 or 500s",
    )  # fmt: skip
    keep: int = option(
        3, "run", "Checkpoints kept, besides the best", least=1, most=LARGEST_COUNT,
        on_resume="free", trainer=True,
    )  # fmt: skip
    noise_scale: bool = option(
        False, "output", "Measure the gradient noise scale: the largest batch size that pays",
        trainer=True,
    )  # fmt: skip
    tracker: str | None = option(
        None, "output", "Where figures go as well: tensorboard, mlflow, MODULE:CLASS of your own; "
        "several with commas", on_resume="free", trainer=True,
    )  # fmt: skip
    progress: str = option(
        "auto", "output", "auto: a bar (by tqdm) on a terminal, else lines", choices=PROGRESS,
        on_resume="unrecorded", trainer=True,
    )  # fmt: skip
    trace: str | None = option(
        None, "output", "File for a trace of some steps, by rank and phase, as ui.perfetto.dev "
        "opens it", on_resume="unrecorded",
    )  # fmt: skip
    trace_steps: str = option(
        "10:29", "output", "First and last step of a trace, counted in this job",
        on_resume="unrecorded", pattern="[1-9][0-9]{0,8}:[1-9][0-9]{0,8}",
        expects="two numbers of steps, as 10:29",
    )  # fmt: skip
    given: frozenset[str] = dataclasses.field(default=frozenset(), compare=False, repr=False)

    @classmethod
    def from_keywords(cls, **keywords: Any) -> Self:
        """The options of a `Trainer`: those that its table row marks, checked.

        Raises:
            InputError: no such keyword, or a value that cannot be used.
        """
        table = options_of(cls)
        known = {name: one for name, one in table.items() if one.trainer}
        values: dict[str, Any] = {"progress": "off"}
        for name, value in keywords.items():
            if name == "epochs":
                raise InputError("no argument of Trainer", name, "give it to fit(X, T, epochs)")
            if name in table and name not in known:
                raise InputError("no argument of Trainer", name, ELSEWHERE[table[name].group])
            if name not in known:
                raise InputError("unknown argument", name, nearest(name, known))
            values[name] = known[name].checked(value, name)
        return cls(**values, given=frozenset(keywords))

    @property
    def validation_share(self) -> float | None:
        """``validation`` where it is a share of the rows, not a file; raises InputError."""
        share = share_of(self.validation or "")
        return None if share is None else number(share, "--validation", above=0, below=1)

    @property
    def checkpoint_interval(self) -> tuple[Literal["epochs", "steps"], int]:
        """``checkpoint_every`` as unit and number."""
        digits = self.checkpoint_every.removesuffix("s")
        return ("epochs" if digits == self.checkpoint_every else "steps"), int(digits)

    def recorded(self) -> dict[str, Any]:
        """What repeats the run, by name.

        Where it lies, whether it goes on and how it shows its progress are no part of it.
        """
        rows = options_of(type(self)).values()
        own = [one.name for one in rows if one.on_resume != "unrecorded"]
        return {name: getattr(self, name) for name in own}


def share_of(text: str) -> float | None:
    """The number that a text is; None for a path. A file of such a name is ``./0.1``."""
    share = from_text(str(text), whole=False)
    return share if isinstance(share, float) else None


def merge_resumed(recorded: TrainConfig, given: TrainConfig) -> TrainConfig:
    """The options with which a recorded run goes on: as recorded, but for what may change.

    Raises:
        InputError: an option given (``given.given``) differs from the recorded one and would
            change what the run computes, or fewer epochs than recorded are asked for.
    """
    recorded, given = recorded.with_full_paths(), given.with_full_paths()
    changes: dict[str, Any] = {"given": given.given}
    for name, one in options_of(TrainConfig).items():
        old, new = getattr(recorded, name), getattr(given, name)
        if one.on_resume == "unrecorded":
            changes[name] = new
        elif name not in given.given or new in (old, "auto") or (one.auto and new is None):
            continue  # auto: what the run chose
        elif one.on_resume == "fixed" or (one.on_resume == "grows" and new < old):
            shown = "nothing" if new is None else new
            raise InputError(
                f"{shown} was given, but the run was started with {old}",
                name,
                "a resumed run may only have more"
                if one.on_resume == "grows"
                else "leave it out, or start another run with --run-dir",
            )
        else:
            changes[name] = new
    return dataclasses.replace(recorded, **changes)
