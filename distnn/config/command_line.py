"""Command lines, by way of cyclopts: flags in, a dictionary of what was given out.

cyclopts is imported inside ``parse_flags``, because only one rank of a job parses.
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import distnn
from distnn.config.fields import Setting, checked, from_text, nearest, settings_of, shown
from distnn.errors import InputError

if TYPE_CHECKING:
    from cyclopts import App, CycloptsError


class HelpRequested(Exception):
    """``--help`` or ``--version``: `text` is to be printed once; the command ends with code 0."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)


def parse_flags(cls: type, argv: Sequence[str], program: str, summary: str) -> dict[str, Any]:
    """The values that a command line gives to the settings of the dataclass `cls`.

    Args:
        cls: its fields are the flags; those marked ``positional`` are taken without a name.
        argv: the arguments behind the command's name.
        program: how the command is started, for the help text.
        summary: what the command does, for the help text.

    Returns:
        The values by field name, of those given only; each is checked.

    Raises:
        InputError: an unknown flag, a value that the setting does not accept.
        HelpRequested: ``--help``, ``-h`` or ``--version`` is among the arguments.
    """
    from cyclopts import App, CycloptsError

    settings = settings_of(cls)
    _refuse_stray(argv)
    app = App(
        name=program,
        help=summary,
        usage=f"Usage: {_usage(program, settings.values())}",
        version=f"distnn {distnn.__version__}",
        help_formatter="plain",
        help_format="plaintext",
    )
    app.default(_command(list(settings.values())))
    try:
        command, given, _ = app.parse_args(list(argv), print_error=False, exit_on_error=False)
    except CycloptsError as error:
        raise _translated(error, [one.flag for one in settings.values()]) from None
    if command == app.help_print:
        raise HelpRequested(_help(app))
    if command == app.version_print:
        raise HelpRequested(str(app.version))
    return {name: _held(settings[name], value) for name, value in given.arguments.items()}


def _usage(program: str, settings: Iterable[Setting]) -> str:
    places = [one for one in settings if one.rule.positional]
    names = [f"[{one.name.upper()}]" if one.optional else one.name.upper() for one in places]
    return " ".join([program, *names, "[--flag value ...]\n"])


def _command(settings: Sequence[Setting]) -> Callable[..., None]:
    """A function with the signature that cyclopts reads the flags from."""

    def command(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("read for its signature only")

    parameters = [_parameter(one) for one in settings]
    parameters.sort(key=lambda parameter: parameter.kind)  # positional ones stand first
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def _parameter(setting: Setting) -> inspect.Parameter:
    from cyclopts import Parameter

    kind: Any = Literal[setting.rule.choices] if setting.rule.choices else setting.type
    help, default = setting.rule.help, setting.default
    details: dict[str, Any] = {"help": help, "show_default": False, "allow_repeating": False}
    if default not in (None, "") and setting.type is not bool:
        shown_default = " ".join(map(str, default)) if isinstance(default, list) else default
        details["help"] = f"{help} [default: {shown_default}]"
    if setting.type is not bool:
        details["converter"] = _converter(setting)
        details["show_choices"] = True
    if setting.type == list[int]:
        details |= {"consume_multiple": True, "negative": ""}
    if setting.rule.positional:
        details |= {"name": setting.name.upper()}
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.POSITIONAL_ONLY
        if setting.rule.positional
        else inspect.Parameter.KEYWORD_ONLY,
        default=setting.default,
        annotation=Annotated[kind, Parameter(**details)],
    )


def _converter(setting: Setting) -> Callable[[Any, Sequence[Any]], Any]:
    # cyclopts' own conversion rounds "1.5" to a whole 2
    def convert(_: Any, tokens: Sequence[Any]) -> Any:
        values = [from_text(setting, token.value) for token in tokens]
        return values if setting.type == list[int] else values[0]

    return convert


def _held(setting: Setting, value: Any) -> Any:
    return checked(
        setting, value, setting.name.upper() if setting.rule.positional else setting.flag
    )


def _refuse_stray(argv: Sequence[str]) -> None:
    """Empty arguments, which an unset shell variable leaves, and bytes that are not text."""
    for argument in argv:
        if not argument:
            raise InputError("empty", "argument", "is a variable of the script not set?")
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise InputError(f"{argument!a} is not UTF-8 text", "argument") from None


def _translated(error: "CycloptsError", flags: Sequence[str]) -> InputError:
    """cyclopts' error as one line in our words."""
    from cyclopts import exceptions

    if isinstance(error, exceptions.UnknownOptionError):
        flag = error.token.keyword or error.token.value
        return InputError("unknown flag", shown(flag).strip("'"), nearest(flag, flags))
    if isinstance(error, exceptions.UnusedCliTokensError):
        extra = error.unused_tokens[0] if error.unused_tokens else ""
        return InputError("unexpected argument", shown(extra).strip("'"), "flags start with --")
    if isinstance(error, exceptions.RepeatArgumentError):
        return InputError("given twice", str(error.token.keyword), "give it once")
    if isinstance(error, exceptions.MissingArgumentError):
        name = error.argument.name if error.argument else "argument"
        return InputError("needs a value", name, "see --help")
    return InputError(str(error).rstrip("."), remedy="see --help")


def _help(app: "App") -> str:
    import io
    import shutil

    from rich.console import Console

    width = min(max(shutil.get_terminal_size((100, 24)).columns, 60), 120)
    text = io.StringIO()
    app.help_print([], console=Console(file=text, width=width, color_system=None))
    return text.getvalue().strip() + "\n"
