"""The settings of the commands: their fields are the flags and the keys of a config file."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from distnn.config.command_line import parse_flags
from distnn.config.fields import LARGEST, checked, nearest, setting, settings_of
from distnn.config.toml_file import read_config, write_config
from distnn.errors import InputError

# The names stand here, too, because run/ and nn/ do not import each other; a test compares them.
ACTIVATIONS = (
    "sigmoid", "tanh", "relu", "leaky-relu", "elu", "gelu", "softplus", "identity",
)  # fmt: skip
OUTPUTS = ("softmax", *ACTIVATIONS)
LOSSES = (
    "cross-entropy", "binary-cross-entropy", "half-squared-error", "squared-error",
    "mean-absolute-error", "huber",
)  # fmt: skip
OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw")
SCHEDULES = ("constant", "step", "linear", "cosine")
INITIALIZERS = ("glorot", "he", "lecun", "normal")
PRECISIONS = ("float32", "float64")
REDUCTIONS = ("ordered", "mpi")
UPDATES = ("rank0", "sharded")
BLAS = ("auto", "numpy", "mkl")
PROGRESS = ("auto", "bar", "lines", "off")
TRAINER_KEYWORDS = (
    "batch_size", "slices", "seed", "reduce", "update", "blas", "clip_norm", "schedule", "warmup",
    "run_dir", "resume", "checkpoint_every", "keep", "stall_timeout", "progress",
)  # fmt: skip
NO_PATHS = ("digits", "arrays")  # bundled; in memory, of a trainer


@dataclasses.dataclass(frozen=True)
class _Plain:
    """TrainConfig as plain values, for JSON between ranks."""

    def to_dict(self) -> dict[str, Any]:
        """The settings by name, as JSON can hold them."""
        return {name: getattr(self, name) for name in settings_of(type(self))}

    def check(self) -> None:
        """Hold every value against its rule; raises an InputError that names the setting."""
        for name, one in settings_of(type(self)).items():
            value = getattr(self, name)
            if not (value is None and one.optional):
                checked(one, value, name)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The settings that ``to_dict`` gave."""
        return cls(**values)


@dataclasses.dataclass(frozen=True)
class TrainConfig(_Plain):
    """What ``python -m distnn.train`` can be told. None: chosen by the trainer.

    ``given`` holds the names that a flag or a config file set; it is not a setting itself.
    """

    data: str = setting("digits", "digits, or a path: .npz, folder of IDX files, .csv")
    test_data: str | None = setting(None, "A second file, with the test set")
    target: str | None = setting(
        None, "Target column (its name, or its number from 0 on without a header), several as "
        "price,tax; or name of the target array"
    )  # fmt: skip
    hidden: list[int] = setting(  # noqa: RUF009
        [64], "Widths of the hidden layers, as 128 64", least=1, most=LARGEST
    )
    activation: str = setting("relu", "Activation of the hidden layers", choices=ACTIVATIONS)
    init: str | None = setting(
        None, "Initial weights; by default from the activation", choices=INITIALIZERS
    )
    output: str | None = setting(
        None, "Activation of the output layer; by default from the task", choices=OUTPUTS
    )
    loss: str | None = setting(None, "Loss; by default from the task", choices=LOSSES)
    optimizer: str = setting("adam", "Rule of update", choices=OPTIMIZERS)
    learning_rate: float | None = setting(
        None, "Learning rate; by default the optimizer's own", above=0
    )
    momentum: float | None = setting(
        None, "Momentum; by default the optimizer's own", least=0, below=1
    )
    weight_decay: float | None = setting(
        None, "Weight decay; by default the optimizer's own: 0.01 for adamw, else 0", least=0
    )
    clip_norm: float | None = setting(None, "Largest norm of the gradient; off by default", above=0)
    schedule: str = setting("constant", "Course of the learning rate", choices=SCHEDULES)
    warmup: int = setting(0, "Steps of linear warm-up in front", least=0, most=LARGEST)
    dropout: float = setting(0.0, "Share of hidden units dropped in training", least=0, below=1)
    batch_size: int = setting(
        64, "Items of a batch, over all ranks together", least=1, most=LARGEST
    )
    slices: int | None = setting(
        None, "Parts a batch is cut into; by default the number of ranks", least=1, most=LARGEST
    )
    epochs: int = setting(20, "Passes over the training set", least=1, most=LARGEST)
    seed: int = setting(0, "What everything random is drawn from", least=0, most=2**63 - 1)
    precision: str = setting("float32", "Floating-point numbers", choices=PRECISIONS)
    reduce: str = setting(
        "ordered", "Sum of gradients: same bits on any number of ranks, or MPI's own",
        choices=REDUCTIONS,
    )  # fmt: skip
    update: str = setting("rank0", "Who updates the weights", choices=UPDATES)
    blas: str = setting(
        "auto", "Matrix products: auto takes MKL on Intel's processors, if installed", choices=BLAS
    )
    run_dir: str | None = setting(
        None, "The run's directory; by default $DISTNN_RUN_DIR, else runs/<time>-<data>"
    )
    resume: bool = setting(False, "Go on with the run in the run directory, if there is one")
    checkpoint_every: str = setting(
        "1", "N epochs, or Ns for N steps",
        pattern="[1-9][0-9]{0,8}s?", expects="N (epochs) or Ns (steps), as 1 or 500s",
    )  # fmt: skip
    keep: int = setting(3, "Checkpoints kept, besides the best", least=1, most=LARGEST)
    stall_timeout: float = setting(
        600.0, "Seconds without any movement after which the job is ended", above=0
    )
    progress: str = setting(
        "auto", "auto: a bar (by tqdm) on a terminal, else lines", choices=PROGRESS
    )
    given: frozenset[str] = dataclasses.field(default=frozenset(), compare=False, repr=False)

    @classmethod
    def from_keywords(cls, **keywords: Any) -> Self:
        """The options of a `Trainer`, checked; raises an InputError that names the keyword."""
        rows = settings_of(cls)
        for name, value in keywords.items():
            if name not in TRAINER_KEYWORDS:
                raise InputError("unknown argument", name, nearest(name, TRAINER_KEYWORDS))
            if not (value is None and rows[name].optional):
                keywords[name] = checked(rows[name], value, name)
        return cls(**{"progress": "off"} | keywords, given=frozenset(keywords))

    @property
    def checkpoint_interval(self) -> tuple[Literal["epochs", "steps"], int]:
        """``checkpoint_every`` as unit and number."""
        digits = self.checkpoint_every.removesuffix("s")
        return ("epochs" if digits == self.checkpoint_every else "steps"), int(digits)


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(_Plain):
    """What ``python -m distnn.evaluate`` can be told."""

    run_dir: str = setting("", "The run's directory", positional=True)
    data: str | None = setting(None, "Data set; by default the test set of the run")
    target: str | None = setting(None, "Target, as for train; by default that of the run")
    checkpoint: str = setting("latest", "latest, best (least test loss), or a path")


@dataclasses.dataclass(frozen=True)
class PredictConfig(_Plain):
    """What ``python -m distnn.predict`` can be told."""

    run_dir: str = setting("", "The run's directory", positional=True)
    data: str = setting("", "File with the rows: .npz, .npy, .csv, IDX")
    output: str = setting(
        "", "File to write: .csv or .npy",
        pattern=r"(?s:.*\.(csv|npy))", expects="a name that ends in .csv or .npy",
    )  # fmt: skip
    checkpoint: str = setting("latest", "latest, best (least test loss), or a path")
    probabilities: bool = setting(False, "Write the network's outputs instead of class numbers")


@dataclasses.dataclass(frozen=True)
class DoctorConfig(_Plain):
    """``python -m distnn.doctor`` takes no flags."""


@dataclasses.dataclass(frozen=True)
class BenchConfig(_Plain):
    """What ``python -m distnn.bench`` can be told."""

    networks: str = setting(
        "784-30-10:16:sigmoid,784-128-10:64:sigmoid,784-512-512-10:256,784-2048-2048-10:1024",
        "Widths, batch size and activation of each, relu if left out",
        pattern=r"(\d+(-\d+)+:0*[1-9]\d*(:[a-z-]+)?)(,\d+(-\d+)+:0*[1-9]\d*(:[a-z-]+)?)*",
        expects="WIDTHS:BATCH[:ACTIVATION], as 784-128-10:64:tanh, several with commas between",
    )
    optimizer: str = setting("sgd", "Rule of update", choices=OPTIMIZERS)
    update: str = setting("rank0", "Who updates the weights", choices=UPDATES)
    reduce: str = setting("ordered", "How gradients are added up", choices=REDUCTIONS)
    blas: str = setting("auto", "Matrix products, as in training", choices=BLAS)
    precision: str = setting("float32", "Floating-point numbers", choices=PRECISIONS)
    slices: int | None = setting(
        None, "Parts a batch is cut into; by default the number of ranks", least=1, most=LARGEST
    )
    seconds: float = setting(2.0, "About how long each network runs", above=0)
    json: str | None = setting(None, "File to write all figures to")


def parse_train(argv: Sequence[str]) -> TrainConfig:
    """The settings of a training run: ``[CONFIG.toml] [--flag value ...]``, flags win.

    Raises:
        InputError: a flag, key or value that cannot be used.
        HelpRequested: ``--help`` is among the arguments.
    """
    summary = "Train a dense network over all ranks that mpirun starts, or over one without it."
    config_file = setting(None, "TOML file; its keys are the flags", positional=True)
    with_config = dataclasses.make_dataclass(
        "TrainFlags", [("config", str | None, config_file)], bases=(TrainConfig,), frozen=True
    )
    flags = parse_flags(with_config, argv, "python -m distnn.train", summary)
    config = flags.pop("config", None)
    values = {} if config is None else read_config(config, TrainConfig)
    values |= flags
    return TrainConfig(**values, given=frozenset(values))


def parse_evaluate(argv: Sequence[str]) -> EvaluateConfig:
    """The settings of ``RUN_DIR [--data ...]``; raises as `parse_train`."""
    summary = "Measure a trained network on its test set, or on another data set."
    flags = parse_flags(EvaluateConfig, argv, "python -m distnn.evaluate", summary)
    _require(flags, {"run_dir": "RUN_DIR"})
    return EvaluateConfig(**flags)


def parse_predict(argv: Sequence[str]) -> PredictConfig:
    """The settings of ``RUN_DIR --data FILE --output FILE``; raises as `parse_train`."""
    summary = "Write what a trained network predicts for new rows."
    flags = parse_flags(PredictConfig, argv, "python -m distnn.predict", summary)
    _require(flags, {"run_dir": "RUN_DIR", "data": "--data", "output": "--output"})
    return PredictConfig(**flags)


def parse_doctor(argv: Sequence[str]) -> DoctorConfig:
    """Nothing can be asked for but help; raises as `parse_train`."""
    summary = "Measure ranks, cores, products and links for some seconds; say what to change."
    return DoctorConfig(**parse_flags(DoctorConfig, argv, "python -m distnn.doctor", summary))


def parse_bench(argv: Sequence[str]) -> BenchConfig:
    """The settings of a measurement; raises as `parse_train`."""
    summary = "Measure a step: where its time goes, and how near it is to the machine's limit."
    return BenchConfig(**parse_flags(BenchConfig, argv, "python -m distnn.bench", summary))


def _require(flags: Mapping[str, Any], names: Mapping[str, str]) -> None:
    for name, shown in names.items():
        if name not in flags:
            raise InputError("missing", shown, "see --help")


def read_recorded(path: str | os.PathLike[str]) -> TrainConfig:
    """The settings of a recorded run, from its config.toml; raises InputError."""
    values = read_config(os.fspath(path), TrainConfig)
    return TrainConfig(**values, given=frozenset(values))


def to_toml(settings: TrainConfig) -> str:
    """The text of a run's config.toml: it repeats the run, from any working directory.

    Paths of data are written in full. Where the run lies, whether it goes on and how it shows
    its progress are no part of what it computes, and are left out.
    """
    leave_out = frozenset({"run_dir", "resume", "progress"})
    heading = "What this run was told and chose; python -m distnn.train FILE repeats it."
    return write_config(_with_full_paths(settings), leave_out, heading)


MAY_CHANGE = frozenset(
    {"epochs", "update", "keep", "checkpoint_every", "run_dir", "resume", "progress"}
    | {"stall_timeout", "blas"}  # another BLAS may change bits, as another machine may: it is told
)


def merge_resumed(recorded: TrainConfig, given: TrainConfig) -> TrainConfig:
    """The settings with which a recorded run goes on: as recorded, but for what may change.

    Raises:
        InputError: a setting given (``given.given``) differs from the recorded one and would
            change what the run computes, or fewer epochs than recorded are asked for.
    """
    recorded_full, given_full = _with_full_paths(recorded), _with_full_paths(given)
    changes: dict[str, Any] = {"given": given.given}
    for name in settings_of(TrainConfig):
        old, new = getattr(recorded_full, name), getattr(given_full, name)
        if name in {"run_dir", "resume", "progress"}:
            changes[name] = new
        elif name not in given.given or new in (old, "auto"):  # auto: what the run chose
            continue
        elif name not in MAY_CHANGE:
            what = f"{new} was given, but the run was started with {old}"
            raise InputError(what, name, "leave it out, or start another run with --run-dir")
        elif name == "epochs" and new < old:
            what = f"{new} was given, but the run was started with {old}"
            raise InputError(what, name, "a resumed run may only have more")
        else:
            changes[name] = new
    return dataclasses.replace(recorded_full, **changes)


def _with_full_paths(settings: TrainConfig) -> TrainConfig:
    data, test_data = settings.data, settings.test_data
    return dataclasses.replace(
        settings,
        data=data if data in NO_PATHS else os.path.abspath(data),
        test_data=test_data and os.path.abspath(test_data),
    )
