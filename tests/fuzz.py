"""Hostile files in numbers: `python tests/fuzz.py [INPUTS]`, by default 10,000.

Sound config files, CSV tables, IDX and npz files are damaged in random ways, repeatably, and read
as the commands read them. Each must be accepted, or refused in one line; another exception, more
than 5 seconds or more than 2 GB of memory fail. Then 500 checkpoints are
damaged: each must be refused, and the one before it be found, or give what was written.

With `python tests/fuzz.py runs [INPUTS]` it is the files of a run that are edited, of which a
training goes on and a set is evaluated: config.toml, metrics.jsonl, summary.json and the files
beside them are damaged as above, and checkpoints forged: what they say is changed, and the digest
made to fit.
"""

import collections
import contextlib
import copy
import functools
import gzip
import io
import json
import logging
import operator
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from distnn.config.command_line import parse_train
from distnn.config.options import TrainConfig
from distnn.config.toml_file import to_toml
from distnn.data.rows import fill
from distnn.data.sources import open_data
from distnn.errors import DistnnError, InputError
from distnn.evaluate import evaluate
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.report.__main__ import report
from distnn.run import checkpoint
from distnn.train import train
from distnn.training.factory import resolve
from distnn.training.loading import Loader

SECONDS, MEMORY = 5, 2 << 30
CHECKPOINTS = 500
Draw = np.random.Generator

HOUSES = b"area,rooms,price\n" + b"".join(
    b"%d,%d,%d.5\n" % (40 + i, i % 5, 7 * i) for i in range(9)
)
TOKENS = [
    b"nan", b"inf", b"1e999", b"-", b'"', b"\0", b"\n", b"\r", b",", b"[", b"]", b"{", b"=", b";",
    b"9" * 400, b"\xff\xfe", b"'", b"#", b"= 1\n", b"../", b"\xef\xbb\xbf", b"\t",
]  # fmt: skip


def idx(array: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def npz() -> bytes:
    file = io.BytesIO()
    x = np.arange(60.0).reshape(20, 3)
    np.savez(file, x_train=x, y_train=np.arange(20) % 3, x_test=x[:5], y_test=np.arange(5) % 3)
    return file.getvalue()


def damaged(draw: Draw, sound: bytes) -> bytes:
    """`sound` with one to four bytes, tokens, gaps, repetitions, cuts or large numbers put in."""
    content = bytearray(sound)
    for _ in range(draw.integers(1, 5)):
        at = int(draw.integers(0, len(content) + 1))
        end = min(len(content), at + int(draw.geometric(0.2)))
        match int(draw.integers(0, 7)):
            case 0:
                content[at:end] = draw.bytes(end - at)
            case 1:
                content[at:at] = TOKENS[draw.integers(len(TOKENS))]
            case 2:
                del content[at:end]
            case 3:
                content[at:at] = content[at:end] * int(draw.integers(1, 50))
            case 4:
                del content[at:]
            case 5:
                content[at : at + 4] = (2 ** int(draw.integers(7, 32)) - 1).to_bytes(4, "big")
            case _:
                other = int(draw.integers(0, len(content) + 1))
                content[at:end] = content[other : other + end - at]
    return bytes(content)


def read_config(folder: Path, content: bytes) -> Path:
    path = folder / "config.toml"
    path.write_bytes(content)
    settings = parse_train([str(path)])
    settings.check()
    resolve(settings, Loader.open(open_data("digits"), settings).shape())
    return path


def read_data(path: Path) -> None:
    source = open_data(str(path))
    loader = Loader.open(source, TrainConfig())
    shape = loader.shape()
    for part in filter(None, (source.train, source.test)):
        fill(part.x, np.empty((len(part.x), 1 + shape.features), np.float32))


def read_csv(folder: Path, content: bytes) -> None:
    (folder / "set.csv").write_bytes(content)
    read_data(folder / "set.csv")


def read_npz(folder: Path, content: bytes) -> None:
    (folder / "set.npz").write_bytes(content)
    read_data(folder / "set.npz")


def read_idx(folder: Path, content: bytes) -> None:
    (folder / "idx").mkdir(exist_ok=True)
    for path in (folder / "idx").iterdir():
        path.unlink()
    packed = ".gz" if content[:2] == b"\x1f\x8b" else ""
    (folder / "idx" / f"train-images-idx3-ubyte{packed}").write_bytes(content)
    (folder / "idx" / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(20) % 3))
    read_data(folder / "idx")


IMAGES = idx(np.arange(20 * 3 * 3).reshape(20, 3, 3) % 256)
SETTINGS = TrainConfig(hidden=[3, 4], optimizer="momentum", clip_norm=1.0, slices=2)
CONFIG = to_toml(SETTINGS).encode()
KINDS: list[tuple[str, bytes, Callable[[Path, bytes], object]]] = [
    ("config", CONFIG, read_config),
    ("csv", HOUSES, read_csv),
    ("idx", IMAGES, read_idx),
    ("idx.gz", gzip.compress(IMAGES, mtime=0), read_idx),
    ("npz", npz(), read_npz),
]


def fuzz(inputs: int, folder: Path) -> None:
    """Read so many damaged files of all kinds."""
    for name, sound, read in KINDS:
        read(folder, sound)
        outcomes: collections.Counter[str] = collections.Counter()
        slowest = 0.0
        for number in range(inputs // len(KINDS)):
            content = damaged(np.random.default_rng([number, len(name)]), sound)
            signal.alarm(SECONDS)
            start = time.perf_counter()
            try:
                read(folder, content)
                outcomes["accepted"] += 1
            except InputError as error:
                outcomes["refused"] += 1
                if len(str(error).splitlines()) != 1:
                    raise AssertionError(f"{name} {number}: not one line: {error!r}") from error
            except BaseException:
                print(f"{name} {number}: {content!r}")
                raise
            signal.alarm(0)
            slowest = max(slowest, time.perf_counter() - start)
        print(f"{name:8} {dict(outcomes)}, slowest {1000 * slowest:.0f} ms")


def changed_header(draw: Draw, content: bytes) -> bytes:
    """A checkpoint whose tensors are swapped, retyped, reshaped or moved in the header."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    names = [name for name in header if name != "__metadata__"]
    one, two = draw.choice(names, 2, replace=False)
    match int(draw.integers(0, 5)):
        case 0:
            header[one], header[two] = header[two], header[one]
        case 1:
            header[one]["dtype"] = str(draw.choice(["F16", "F32", "F64", "I64", "U8", "X"]))
        case 2:
            header[one]["shape"] = [int(2 ** draw.integers(0, 60)), 2]
        case 3:
            header[one]["data_offsets"][1] += int(draw.integers(-(2**40), 2**40))
        case _:
            header[one + "x"] = header.pop(one)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def checkpoints(folder: Path) -> None:
    """Damage the newer of two checkpoints; what is found must be one of the two, as written."""
    draw = np.random.default_rng(0)
    written = []
    for step in (10, 20):
        tensors = {name: draw.normal(size=(5, 4)).astype("f4") for name in ("W1", "W2")}
        tensors["optimizer.m"] = draw.normal(size=40)
        name = checkpoint.step_name(step)
        written.append((checkpoint.write(folder, name, tensors, {"step": step}), tensors))
    newer = written[1][0]
    sound = newer.read_bytes()
    outcomes: collections.Counter[str] = collections.Counter()
    for number in range(CHECKPOINTS):
        draw = np.random.default_rng([number, 99])
        if number % 3 == 0:
            content = changed_header(draw, sound)
        elif number % 3 == 1:
            content = bytearray(sound)
            content[draw.integers(len(sound))] ^= 1 << draw.integers(8)
        else:
            content = damaged(draw, sound)
        newer.write_bytes(content)
        named: list[checkpoint.CheckpointError] = []
        signal.alarm(SECONDS)
        found = checkpoint.newest(folder, named.append)
        signal.alarm(0)
        assert found is not None
        path, tensors = written[0] if named else written[1]
        assert found.path == path
        assert all(str(error).startswith(str(newer)) for error in named)
        assert found.tensors.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert np.array_equal(found.tensors[name], tensor)
        outcomes["refused, the one before is used" if named else "as written"] += 1
    print(f"checkpoints {dict(outcomes)}")


VALUES = [
    None, True, -1, 0, 1, 2**31, 2**63, 2**200, -(2**63), 0.5, -0.0, 1e308, float("nan"),
    float("inf"), "", "x", "\x1b[31m", "a\nb", "\0", "9" * 5000, [], [None], [[]], {}, {"a": {}},
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all that nested dictionaries and lists hold."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found: list[tuple[Any, ...]] = []
    for key, one in inner:
        found.append((*path, key))
        if isinstance(one, (dict, list)):
            found += places(one, (*path, key))
    return found


def forged(draw: Draw, path: Path, name: str, found: checkpoint.Checkpoint) -> None:
    """Write a checkpoint that says something else, with a digest that fits."""
    meta, tensors = copy.deepcopy(found.meta), dict(found.tensors)
    for _ in range(draw.integers(1, 4)):
        if draw.random() < 0.3:
            one, two = draw.choice(sorted(tensors), 2, replace=False)
            array = np.array(tensors[one])
            tensors[one] = [
                array.astype("i8"), array.reshape(-1)[:-1], np.full_like(array, 127), tensors[two],
                array[None], array[:0],
            ][draw.integers(6)]  # fmt: skip
            if draw.random() < 0.2:
                tensors[f"{one}x"] = tensors.pop(one)
            continue
        known = places(meta)
        *outer, key = known[draw.integers(len(known))]
        holder = functools.reduce(operator.getitem, outer, meta)
        if isinstance(holder, dict) and draw.random() < 0.1:
            del holder[key]
        else:
            holder[key] = VALUES[draw.integers(len(VALUES))]
    dumps = functools.partial(json.dumps, sort_keys=True)  # NaN, too, unlike distnn
    with mock.patch.object(checkpoint.json, "dumps", lambda value, **_: dumps(value)):
        checkpoint.write(path, name, tensors, meta)


def runs(inputs: int, folder: Path) -> None:
    """Go on with, evaluate and report a run whose files were edited, so many times."""
    comm, sound, run = Communicator(MPI.COMM_SELF), folder / "sound", folder / "run"
    data = folder / "set.csv"
    data.write_bytes(b"a,b,kind\n" + b"".join(b"%d,%d,%d\n" % (i, i % 7, i % 2) for i in range(40)))
    words = ["--data", str(data), "--target", "kind", "--slices", "2", "--hidden", "3"]
    start = ["--batch-size", "16", "--epochs", "2", "--progress", "off", "--run-dir", str(run)]
    train(comm, [*words, *start])
    run.rename(sound)
    found = checkpoint.newest(sound / "checkpoints", print)
    assert found is not None
    logging.disable()
    outcomes: collections.Counter[str] = collections.Counter()
    for number in range(inputs):
        draw = np.random.default_rng([number, 7])
        shutil.copytree(sound, run)
        texts = sorted(path for path in run.iterdir() if path.is_file() and path.stat().st_size)
        if draw.random() < 0.6:
            forged(draw, run / "checkpoints", found.path.stem, found)
        if draw.random() < 0.6:
            edited = texts[draw.integers(len(texts))]
            edited.write_bytes(damaged(draw, edited.read_bytes()))
        epochs = str(draw.integers(2, 4))  # 2: nothing is left to do
        for command, given in (
            (report, [str(run), "--output", str(folder / "page.html")]),
            (train, ["--run-dir", str(run), "--resume", "--epochs", epochs, "--progress", "off"]),
            (evaluate, [str(run), "--data", str(data)]),
        ):
            signal.alarm(SECONDS)
            try:
                with contextlib.redirect_stdout(io.StringIO()) as told:
                    command(comm, given)
                outcomes[f"{command.__name__}: done"] += 1
            except DistnnError as error:
                outcomes[f"{command.__name__}: refused"] += 1
                if not str(error).isprintable():
                    raise AssertionError(f"run {number}: {error!r}") from error
            except BaseException:
                print(f"run {number}: {command.__name__}", file=sys.stderr)
                raise
            signal.alarm(0)
            if not told.getvalue().replace("\n", "").isprintable():
                raise AssertionError(f"run {number}: printed {told.getvalue()!r}")
        shutil.rmtree(run)
    print(f"{inputs} edited runs {dict(sorted(outcomes.items()))}")


def main(words: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    inputs = int(words[-1]) if words and words[-1].isdecimal() else 10_000
    with tempfile.TemporaryDirectory() as folder:
        if "runs" in words:
            runs(inputs, Path(folder))
            return
        fuzz(inputs, Path(folder))
        checkpoints(Path(folder) / "checkpoints")


if __name__ == "__main__":
    main(sys.argv[1:])
