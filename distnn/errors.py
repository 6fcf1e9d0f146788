"""The package's own exceptions. Each says what is wrong, where, and what to do about it.

The commands print such an error as one line, once, and end with its ``exit_code``; any other
exception is a failure of a rank and shows its traceback.
"""


class DistnnError(Exception):
    """Base of the package's errors."""

    exit_code = 1


class InputError(DistnnError):
    """Something the user gave cannot be used: a flag, a key, a file, an array.

    Args:
        what: what is wrong, without a full stop.
        where: the file, field, flag or argument it is about; stands in front.
        remedy: what to do about it; stands at the end.

    The message is one line: ``where: what; remedy``.
    """

    exit_code = 2

    def __init__(self, what: str, where: str = "", remedy: str = "") -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        line = (f"{where}: " if where else "") + what + (f"; {remedy}" if remedy else "")
        super().__init__(printable(" ".join(line.split())))


def printable(line: str) -> str:
    """What quotes a file, which may be damaged or forged, without commands to a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


class DivergenceError(DistnnError):
    """Training produced a loss or a weight that is not finite."""

    exit_code = 3


class StopRequested(DistnnError):
    """A signal asked the run to stop; a checkpoint is saved, and running again goes on from it."""

    exit_code = 75


class RankFailed(Exception):
    """Another rank failed, so that this one cannot go on; the error itself stands there.

    No `DistnnError`: it does not rise on every rank alike.
    """
