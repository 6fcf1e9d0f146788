"""Command lines, by argparse, and their ``--help``. Only rank 0 imports this module."""

import argparse
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import distnn
from distnn.checks import nearest, shown
from distnn.config.commands import (
    BenchConfig,
    DoctorConfig,
    EvaluateConfig,
    ExportConfig,
    PredictConfig,
    ReportConfig,
)
from distnn.config.option import Option, options_of
from distnn.config.options import TrainConfig
from distnn.config.toml_file import read_config
from distnn.errors import InputError

WIDTH = 80  # columns of --help
METAVARS = {int: "N", float: "X", str: "TEXT", list[int]: "N", list[str]: "TEXT"}


class HelpRequested(Exception):
    """``--help`` or ``--version``: `text` is to be printed once; the command ends with code 0."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)


def parse_train(argv: Sequence[str]) -> TrainConfig:
    """The options of a training run: ``[CONFIG.toml] [--flag value ...]``, flags win.

    Raises:
        InputError: a flag, key or value that cannot be used.
        HelpRequested: ``--help``, ``-h`` or ``--version`` is among the arguments.
    """
    summary = "Train a dense network over all ranks that mpirun starts, or over one without it."
    config = Option(
        None, "run", "TOML file; its keys are the flags", positional=True, name="config",
        optional=True,
    )  # fmt: skip
    options = {"config": config, **options_of(TrainConfig)}
    flags = parse_flags(options, argv, "train", summary)
    path = flags.pop("config", None)
    values = ({} if path is None else read_config(path, TrainConfig)) | flags
    return TrainConfig(**values, given=frozenset(values))


def parse_evaluate(argv: Sequence[str]) -> EvaluateConfig:
    """The options of ``RUN_DIR [--data ...]``; raises as `parse_train`."""
    summary = "Measure a trained network on its test set, or on another data set."
    return EvaluateConfig(**parse_flags(options_of(EvaluateConfig), argv, "evaluate", summary))


def parse_predict(argv: Sequence[str]) -> PredictConfig:
    """The options of ``RUN_DIR --data FILE --output FILE``; raises as `parse_train`."""
    summary = "Write what a trained network predicts for new rows."
    return PredictConfig(**parse_flags(options_of(PredictConfig), argv, "predict", summary))


def parse_report(argv: Sequence[str]) -> ReportConfig:
    """The options of ``RUN [RUN ...] --output FILE.html``; raises as `parse_train`."""
    summary = "Write one page about a run, or about several side by side."
    return ReportConfig(**parse_flags(options_of(ReportConfig), argv, "report", summary))


def parse_export(argv: Sequence[str]) -> ExportConfig:
    """The options of ``RUN_DIR [--format ...]``; raises as `parse_train`."""
    summary = "Write a trained network for onnxruntime, PyTorch or a program of one's own."
    return ExportConfig(**parse_flags(options_of(ExportConfig), argv, "export", summary))


def parse_doctor(argv: Sequence[str]) -> DoctorConfig:
    """There are no options but ``--help``; raises as `parse_train`."""
    summary = "Measure ranks, cores, products and links for some seconds; say what to change."
    return DoctorConfig(**parse_flags(options_of(DoctorConfig), argv, "doctor", summary))


def parse_bench(argv: Sequence[str]) -> BenchConfig:
    """The options of a measurement; raises as `parse_train`."""
    summary = "Measure a step: where its time goes, and how near it is to the machine's limit."
    return BenchConfig(**parse_flags(options_of(BenchConfig), argv, "bench", summary))


def parse_flags(
    options: Mapping[str, Option], argv: Sequence[str], command: str, summary: str
) -> dict[str, Any]:
    """The values that a command line gives to `options`, by name, checked; of those given only.

    Args:
        argv: the arguments behind the command's name.
        command: as in ``python -m distnn.COMMAND``, for the help text.
        summary: what the command does, for the help text.

    Raises:
        InputError: an unknown flag, a value that the option does not accept, a required one that
            is missing.
        HelpRequested: ``--help``, ``-h`` or ``--version`` is among the arguments.
    """
    _refuse_stray(argv)
    parser = _parser(options.values(), f"python -m distnn.{command}", summary)
    try:
        found, extra = parser.parse_known_intermixed_args(_plain_words(argv, options))
    except argparse.ArgumentError as error:
        needs_value = error.message.startswith("expected")
        what = "needs a value" if needs_value else error.message
        raise InputError(what, error.argument_name or "", "see --help") from None
    if extra:
        raise _unknown(extra, options.values())
    given = {name: options[name].from_words(words) for name, words in vars(found).items()}
    for name, one in options.items():
        if one.default == "" and name not in given:
            raise InputError("missing", one.flag, "see --help")
    return given


class _Store(argparse.Action):
    """Stores the words that follow a flag, or the flag itself if none does; once."""

    def __call__(self, parser: Any, namespace: Any, words: Any, flag: str | None = None) -> None:
        if hasattr(namespace, self.dest):
            raise InputError("given twice", flag or self.dest.upper(), "give it once")
        if self.nargs == 0:
            words = [flag]
        setattr(namespace, self.dest, words if isinstance(words, list) else [words])


class _Show(argparse.Action):
    """Ends the parsing with a text for the user."""

    def __call__(self, parser: Any, namespace: Any, words: Any, flag: str | None = None) -> None:
        raise HelpRequested(self.const or parser.format_help())


class _Formatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=WIDTH)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)  # names stay whole


def _parser(options: Iterable[Option], program: str, summary: str) -> argparse.ArgumentParser:
    positional = [f"[{o.flag}]" if o.optional else o.flag for o in options if o.positional]
    parser = argparse.ArgumentParser(
        prog=program, usage=" ".join([program, *positional, "[--flag value ...]"]),
        description=summary, formatter_class=_Formatter, argument_default=argparse.SUPPRESS,
        add_help=False, allow_abbrev=False, exit_on_error=False,
    )  # fmt: skip
    version = f"distnn {distnn.__version__}"
    parser.add_argument("-h", "--help", action=_Show, nargs=0, help="show this text")
    parser.add_argument("--version", action=_Show, nargs=0, const=version, help="show the version")
    groups: dict[str, Any] = {}
    for one in options:
        details: dict[str, Any] = {"action": _Store, "help": _described(one)}
        if one.positional:
            nargs = "*" if one.type == list[str] else "?"
            parser.add_argument(one.name, metavar=one.flag, nargs=nargs, **details)
            continue
        if one.type is bool:
            names, details["nargs"] = [one.flag, f"--no-{one.flag[2:]}"], 0
        else:
            names, details["metavar"] = [one.flag], "NAME" if one.choices else METAVARS[one.type]
            details["nargs"] = "*" if one.type == list[int] else None
        if one.group not in groups:
            groups[one.group] = parser.add_argument_group(one.group)
        groups[one.group].add_argument(*names, **details)
    return parser


def _described(one: Option) -> str:
    """The help text with the range and the default."""
    text = f"{one.help} [{one.range}]" if one.range else one.help
    if one.default is None or one.default == "" or one.type is bool:
        return text
    default = " ".join(map(str, one.default)) if isinstance(one.default, list) else one.default
    return f"{text} (default: {default})"


def _refuse_stray(argv: Sequence[str]) -> None:
    """Empty arguments, which an unset shell variable leaves, and bytes that are not text."""
    for argument in argv:
        if not argument:
            raise InputError("empty", "argument", "is a variable of the script not set?")
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise InputError(f"{argument!a} is not UTF-8 text", "argument") from None


def _plain_words(argv: Sequence[str], options: Mapping[str, Option]) -> list[str]:
    """The arguments as argparse understands them.

    Flags may have underscores, as keys do. argparse takes the -1e-3 behind a flag for another
    flag, unless = joins the two.
    """
    floats = {one.flag for one in options.values() if one.type is float}
    words: list[str] = []
    for word in argv:
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            words.append(name.replace("_", "-") + equals + value)
        elif word.startswith("-") and words and words[-1] in floats:
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _unknown(extra: Sequence[str], options: Iterable[Option]) -> InputError:
    """What argparse could not use, as an error: an unknown flag, or a word too many."""
    flag = next((word for word in extra if word.startswith("-")), None)
    if flag is None:
        return InputError("unexpected argument", shown(extra[0]).strip("'"), "flags start with --")
    flag = flag.partition("=")[0]
    remedy = nearest(flag, [*(one.flag for one in options if not one.positional), "--help"])
    for one in options:
        if one.positional and flag.strip("-").replace("-", "_") == one.name:
            remedy = f"give {one.flag} without a flag"
    return InputError("unknown flag", shown(flag).strip("'"), remedy)
