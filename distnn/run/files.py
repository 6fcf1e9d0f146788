"""Writing files that are whole or not there: aside, flushed to the disk, renamed."""

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path

TEMPORARY = ".tmp"
# What stands beside a run's own files while they are written, see `write_whole`.
UNFINISHED = re.compile(
    r"\.(config\.toml|run\.id|(summary|outcome|phases)\.json|(metrics|timings)\.jsonl|(best|step-\d+)\.safetensors)"
    r"\.\d+\.[0-9a-f]{8}" + re.escape(TEMPORARY)
)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a file beside `path`, flush it, and rename it to `path`.

    Whoever reads `path` finds the old content or the new, never a part, also after the machine
    lost power: the file is on the disk before its name is, and the name when this returns.

    Raises:
        OSError: no space, no permission; `path` is as it was, and nothing is left beside it.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        write(aside)
        flush(aside)
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to raise
            aside.unlink(missing_ok=True)
        raise
    flush_directory(path.parent)


def write_output(path: Path, write: Callable[[Path], object]) -> None:
    """`write_whole` for a path that a user named: links are followed, devices written to.

    Raises:
        OSError: as `write_whole`.
    """
    if path.exists() and not path.is_file():
        write(path)
    else:
        write_whole(Path(os.path.realpath(path)), write)


def write_text(path: Path, text: str) -> None:
    """`text` as the whole content of `path`; raises as `write_whole`."""
    write_whole(path, lambda aside: aside.write_bytes(text.encode()))


def flush(path: Path) -> None:
    """Wait until the content of a file, or the names in a directory, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_directory(path: Path) -> None:
    """Wait until the names in a directory are on the disk, where its file system can do so."""
    try:
        flush(path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def reason(error: OSError) -> str:
    """The operating system's message."""
    return error.strerror or str(error)


def leftovers(directory: Path) -> list[Path]:
    """What writers of a run that were killed left behind; nothing where a link leads to."""
    if directory.is_symlink():
        return []
    names = directory.glob(f".*{TEMPORARY}")
    return sorted(path for path in names if UNFINISHED.fullmatch(path.name))


def without_links(path: str | Path, flags: int) -> int:
    """Open a file of a run's directory, as ``os.open``; a link in its place is an OSError."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
