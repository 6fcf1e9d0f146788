"""A run's directory: the paths of its files, whether it holds a run, and its lock."""

import errno
import fcntl
import os
import platform
import stat
import struct
import time
from pathlib import Path
from typing import BinaryIO

from distnn.errors import InputError
from distnn.run.files import leftovers, without_links, write_text

LOCK = struct.Struct("hhqqi4x")  # flock of 64-bit Linux: kind, whence, start, length, process


class RunDirectory:
    """The files of one run under `path`; nothing is touched before ``make_folders`` or ``claim``.

    ``config``, ``metrics``, ``timings``, ``summary`` are files, ``checkpoints`` a directory;
    ``outcome`` says why training ended early, ``phases`` what its steps were spent on, where that
    was measured; ``lock`` is the file by which one job keeps others from writing here; ``id`` holds
    the run's identity, which its checkpoints carry, too.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.toml"
        self.metrics = self.path / "metrics.jsonl"
        self.timings = self.path / "timings.jsonl"
        self.summary = self.path / "summary.json"
        self.outcome = self.path / "outcome.json"
        self.phases = self.path / "phases.json"
        self.checkpoints = self.path / "checkpoints"
        self.lock = self.path / "writer.lock"
        self.id = self.path / "run.id"
        self._held: BinaryIO | None = None

    def __str__(self) -> str:
        return str(self.path)

    def holds_run(self) -> bool:
        """Whether a run was recorded here; raises InputError if that cannot be seen."""
        try:
            files = (self.config, self.metrics, self.timings, self.summary)
            there = any(path.exists() for path in files)
            return there or any(self.checkpoints.glob("*.safetensors"))
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", str(self.path)) from None

    def refuse_run(self) -> None:
        """Raise an InputError if a run was recorded here already."""
        if self.holds_run():
            remedy = "use --resume or another --run-dir"
            raise InputError("already holds a run", str(self.path), remedy)

    def require_run(self) -> None:
        """Raise an InputError unless a run is found here. Nothing is touched."""
        if not (self.holds_run() and self.config.is_file()):
            raise InputError("holds no run (no config.toml)", str(self.path), "check the path")

    def make_folders(self) -> None:
        """Make the directory and ``checkpoints`` in it, where they are missing.

        Raises:
            InputError: a file has that name, or it cannot be written.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            remedy = "give another --run-dir"
            raise InputError("a file is in the way", str(self.path), remedy) from None
        except OSError as error:
            raise self._unwritable(error) from None

    def claim(self) -> bool:
        """Keep other jobs from writing here until ``release`` or the end of this process.

        A POSIX lock, which the system takes back from a dead process: a killed job never blocks
        its successor. It holds between hosts where the file system passes locks on (NFS version
        4, Lustre mounted with ``flock``, GPFS, CephFS).

        Returns:
            False if the file system has no locks: then nothing keeps a second job away.

        Raises:
            InputError: another process is writing here; its host and number are named.
        """
        try:
            file = os.fdopen(_open_or_make(self.lock), "r+b")
        except OSError as error:
            if error.errno == errno.ELOOP:
                error = OSError(error.errno, f"{self.lock.name} is a link")
            raise self._unwritable(error) from None
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            owner = file.read(100).decode(errors="replace") or "another job"
            file.close()
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return False
            what, remedy = f"{owner} is writing here", "wait for it, or give another --run-dir"
            raise InputError(what, str(self.path), remedy) from None
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {platform.node()}".encode())
        file.flush()
        self._held = file
        return True

    def writer(self) -> str:
        """Who is writing here, as ``process 7 on host``; empty if nobody is. Nothing is touched."""
        try:
            with os.fdopen(without_links(self.lock, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                asked = fcntl.fcntl(file, fcntl.F_GETLK, LOCK.pack(fcntl.F_WRLCK, 0, 0, 0, 0))
                is_held = LOCK.unpack(asked)[0] != fcntl.F_UNLCK
                return file.read(100).decode(errors="replace") if is_held else ""
        except OSError:  # no lock, or a file system without locks
            return ""

    def release(self) -> None:
        """Let other jobs write here; nothing happens if it was not claimed."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def remove_leftovers(self) -> None:
        """Remove what killed writers left, if this job holds the directory's lock."""
        if self._held is None:
            return
        try:
            for path in (*leftovers(self.path), *leftovers(self.checkpoints)):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None

    def identity(self) -> str:
        """The run's identity; empty if none is recorded, as by distnn before it had one."""
        try:
            with os.fdopen(without_links(self.id, os.O_RDONLY), "rb") as file:
                return file.read(100).decode(errors="replace").strip()
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", str(self.id)) from None

    def record(self, config: str, identity: str) -> None:
        """Write the run's identity and config.toml, which more epochs of a resumed run replace.

        Raises:
            InputError: they cannot be written.
        """
        try:
            if self.identity() != identity:
                write_text(self.id, identity + "\n")
            write_text(self.config, config)
        except OSError as error:
            raise self._unwritable(error) from None

    def forget_outcome(self) -> None:
        """The run goes on: how it ended before is no longer so. Raises InputError."""
        try:
            self.outcome.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> InputError:
        what = f"cannot be written: {error.strerror or error}"
        return InputError(what, str(self.path), "give another --run-dir")


def _open_or_make(path: Path) -> int:
    handle = without_links(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EEXIST, "the lock is not a file")
    return handle


def default_path(data: str, parent: str | Path = "runs") -> Path:
    """``runs/<time>-<data>``: local time to the second, the data's name without its ending.

    A number is added if there is such a directory, so that two runs of one second do not meet.
    """
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(data).stem) or "data"
    first = Path(parent) / f"{time.strftime('%Y%m%d-%H%M%S')}-{name[:40]}"
    path, number = first, 1
    while path.exists():
        number += 1
        path = first.with_name(f"{first.name}-{number}")
    return path
