"""Checkpoints: safetensors files that are whole, verified on load, and never hold code.

A file carries two strings besides its tensors: ``distnn``, the metadata as JSON, and ``sha256``, a
digest over that string and every tensor's name, dtype, shape and bytes.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distnn.errors import InputError
from distnn.run.files import leftovers, reason, write_whole

SUFFIX = ".safetensors"
AUTO, BEST, LATEST = "auto", "best", "latest"
LARGEST_HEADER = 1 << 20  # bytes; a few hundred tensors need some 30,000
DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(code)
    for name, code in {"F32": "<f4", "F64": "<f8", "I64": "<i8", "U64": "<u8", "U8": "|u1"}.items()
}
PIECE = 1 << 23  # bytes written at a time, so that others see that something moves
REMEDY = "remove it and go on from the one before it"


class CheckpointError(InputError):
    """A checkpoint cannot be written, read or trusted."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: `tensors` by name, and the metadata as it was given to ``write``."""

    path: Path
    tensors: dict[str, np.ndarray]
    meta: dict[str, Any]

    def weights(self) -> np.ndarray:
        """W1 ... WL as one flat vector."""
        layers = sum(re.fullmatch(r"W\d+", name) is not None for name in self.tensors)
        return np.concatenate([self.tensors[f"W{l}"].reshape(-1) for l in range(1, layers + 1)])

    def state(self) -> dict[str, np.ndarray]:
        """The optimizer's state vectors by name."""
        mark = "optimizer."
        return {
            name.removeprefix(mark): vector
            for name, vector in self.tensors.items()
            if name.startswith(mark)
        }


def step_name(step: int) -> str:
    """The name of the checkpoint after `step` steps; names sort as the steps do."""
    return f"step-{step:010d}"


def write(
    directory: Path, name: str, tensors: Mapping[str, np.ndarray], meta: Mapping[str, Any]
) -> Path:
    """Write a checkpoint; when this returns, it is on the disk under its name.

    Args:
        directory: where; made if missing.
        name: of the file, without its ending, as `step_name` gives it.
        tensors: float32, float64, int64, uint64 or uint8.
        meta: what JSON can hold; not NaN.

    Raises:
        CheckpointError: no space, no permission; other checkpoints are untouched.
        ValueError: a tensor or metadata of another kind (an error of the program).
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"not a name for a checkpoint: {name!r}")
    plain = {key: _plain(key, array) for key, array in tensors.items()}
    text = json.dumps(meta, sort_keys=True, allow_nan=False)
    strings = {"distnn": text, "sha256": digest(plain, text)}
    path = directory / (name + SUFFIX)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda aside: _save(aside, plain, strings))
    except OSError as error:
        raise CheckpointError(f"cannot be written: {reason(error)}", str(path)) from error
    return path


def read(path: str | Path) -> Checkpoint:
    """Load and verify a checkpoint.

    Sizes are compared with the file's before memory is taken for them; then the digest is verified,
    and that every number is finite.

    Raises:
        CheckpointError: it cannot be read, is damaged, or was not written by distnn.
    """
    path = Path(path)
    with _errors_named(path):
        _verify_sizes(path)
        tensors, strings = _load(path)
    text = strings.get("distnn")
    if text is None:
        raise CheckpointError("was not written by distnn", str(path))
    if strings.get("sha256") != digest(tensors, text):
        raise _damaged(path, "its digest does not match its content")
    for name, array in tensors.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise _damaged(path, f"{name} holds NaN or infinity")
    return Checkpoint(path, tensors, _meta(path, text))


def read_meta(path: Path) -> dict[str, Any]:
    """The metadata of a checkpoint alone: to be shown, not to be trained on.

    Neither tensors nor digest are looked at, so that it costs the same for any size.

    Raises:
        CheckpointError: it cannot be read, or was not written by distnn.
    """
    from safetensors import safe_open

    with _errors_named(path):
        _verify_sizes(path)
        with safe_open(path, framework="np") as file:
            strings = file.metadata() or {}
    return _meta(path, strings.get("distnn", ""))


def saved(directory: Path) -> list[Path]:
    """The checkpoints of steps in a directory, newest first, not looked into."""
    return sorted(directory.glob(f"step-*{SUFFIX}"), key=lambda path: path.name, reverse=True)


def newest(directory: Path, skipped: Callable[[CheckpointError], None]) -> Checkpoint | None:
    """The newest checkpoint that can be trusted, or None if there is none at all.

    Args:
        directory: a run's ``checkpoints``.
        skipped: called with the error of each damaged one that is passed over.

    Raises:
        CheckpointError: there are some, and none can be used: to start anew must be asked for.
    """
    paths = saved(directory)
    for path in paths:
        try:
            return read(path)
        except CheckpointError as error:
            skipped(error)
    if paths:
        remedy = "start another run, or restore one of them"
        raise CheckpointError(f"none of {len(paths)} checkpoints loads", str(directory), remedy)
    return None


def find(directory: Path, which: str) -> Path:
    """The path that ``latest``, ``best`` or a path of the user's means; it may not exist."""
    if which == BEST:
        return directory / (BEST + SUFFIX)
    if which != LATEST:
        return Path(which)
    paths = saved(directory)
    if not paths:
        raise CheckpointError("holds no checkpoint", str(directory), "train first")
    return paths[0]


def chosen(directory: Path, which: str) -> Checkpoint:
    """What `find` finds, or for ``auto`` the best one where a validation set chose it, else the
    latest; raises CheckpointError."""
    if which != AUTO:
        return read(find(directory, which))
    latest = read(find(directory, LATEST))
    watched = latest.meta.get("watch") or {"value": None}
    return latest if watched["value"] is None else read(find(directory, BEST))


def mark_best(path: Path) -> Path:
    """Have ``best`` name the content of `path`, also when `path` is pruned later.

    Raises:
        CheckpointError: no space, no permission; the best one before is untouched.
    """

    def link(aside: Path) -> None:
        try:
            os.link(path, aside)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, aside)

    best = path.with_name(BEST + SUFFIX)
    try:
        write_whole(best, link)
    except OSError as error:
        raise CheckpointError(f"cannot be written: {reason(error)}", str(best)) from error
    return best


def best_score(directory: Path, identity: str) -> float:
    """The score of the best checkpoint, less is better; infinity if none can be read.

    Args:
        identity: of the run; the checkpoint of another one does not count.
    """
    try:
        meta = read(find(directory, BEST)).meta  # not `read_meta`: a damaged one must not count
    except CheckpointError:
        return math.inf
    score = meta.get("score", meta.get("loss"))  # as distnn called it once
    is_own = meta.get("run", identity) == identity
    return score if is_own and isinstance(score, float) else math.inf


def prune(directory: Path, keep: int) -> None:
    """Remove all but the `keep` newest checkpoints of steps, and what killed writers left.

    To be called after ``write`` returned, by the one writer of the directory. ``best`` stays. A
    file that cannot be removed stays and is no error: nothing is lost.
    """
    for path in saved(directory)[keep:] + leftovers(directory):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def digest(tensors: Mapping[str, np.ndarray], text: str) -> str:
    """SHA-256 over the metadata's text and every tensor's name, dtype, shape and bytes."""
    names = sorted(tensors)
    description = [[name, tensors[name].dtype.str, tensors[name].shape] for name in names]
    hasher = hashlib.sha256(json.dumps([text, description]).encode())
    for name in names:
        hasher.update(_bytes(tensors[name]))
    return hasher.hexdigest()


def weights_sha256(weights: Sequence[np.ndarray]) -> str:
    """SHA-256 over the little-endian float bytes of W[1] ... W[L] in order, C layout."""
    hasher = hashlib.sha256()
    for W in weights:  # (1 + n_in, n_out)
        hasher.update(_bytes(np.ascontiguousarray(W, W.dtype.newbyteorder("<"))))
    return hasher.hexdigest()


def optimizer_sha256(state: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the little-endian float bytes of the state's flat vectors, in name order."""
    return weights_sha256([state[name] for name in sorted(state)])


def _bytes(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _plain(name: str, array: np.ndarray) -> np.ndarray:
    """`array` little-endian and contiguous, as the file holds it."""
    plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
    if plain.dtype not in DTYPES.values():
        raise ValueError(f"tensor {name}: no checkpoint holds {array.dtype}")
    return plain


@contextlib.contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Whatever fails while `path` is read, as a CheckpointError of it."""
    try:
        yield
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError("no such checkpoint", str(path)) from None
    except Exception as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise CheckpointError(f"cannot be read: {why[:200]}", str(path), REMEDY) from None


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"damaged: {what}", str(path), REMEDY)


def _meta(path: Path, text: str) -> dict[str, Any]:
    # whoever forges the content can forge the digest, too: the text is not trusted
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError):
        meta = None
    if not isinstance(meta, dict):
        raise CheckpointError("was not written by distnn", str(path))
    return meta


def _save(path: Path, tensors: Mapping[str, np.ndarray], strings: Mapping[str, str]) -> None:
    """Write a safetensors file in pieces.

    The safetensors package copies each tensor while it holds the interpreter's lock, which would
    stop the training; this runs in a thread beside it.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))  # keeps them aligned
    header: dict[str, Any] = {"__metadata__": dict(strings)}
    end = 0
    for name in names:
        array = tensors[name]
        begin, end = end, end + array.nbytes
        dtype = next(code for code, known in DTYPES.items() if known == array.dtype)
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb", buffering=0) as file:
        _write_all(file, len(text).to_bytes(8, "little") + text)
        for name in names:
            _write_all(file, _bytes(tensors[name]))


def _write_all(file: io.FileIO, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view[:PIECE]) :]


def _load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        return tensors, file.metadata() or {}


def _verify_sizes(path: Path) -> None:
    """Compare the sizes in the header with the file's, before memory is taken."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise CheckpointError("not a file", str(path))
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):  # may be sparse
            raise CheckpointError("larger than this machine's memory", str(path))
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, LARGEST_HEADER):
            raise _damaged(
                path, "its header is larger than the file or than any that distnn writes"
            )
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a table")
    header.pop("__metadata__", None)
    spans = sorted(_span(path, name, entry) for name, entry in header.items())
    position = 0
    for begin, end in spans:
        if begin != position:
            raise _damaged(path, "its tensors overlap or leave gaps")
        position = end
    if position != size - 8 - length:
        raise _damaged(path, f"it has {size} bytes and should have {8 + length + position}")


def _span(path: Path, name: str, entry: Any) -> tuple[int, int]:
    """The byte offsets of one tensor, checked against its dtype and shape."""
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]}:
            whole = all(isinstance(n, int) and 0 <= n < 2**48 for n in shape) and len(shape) <= 32
            if whole and dtype in DTYPES and 0 <= begin <= end:
                count = 1
                for n in shape:
                    count *= n
                if count * DTYPES[dtype].itemsize == end - begin:
                    return begin, end
    raise _damaged(path, f"tensor {name[:60]!a} has no possible dtype, shape and place")
