"""Checkpoints: what is read is what was written, or it is refused; nothing in between."""

import hashlib
import json
import math
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from distnn.errors import InputError
from distnn.run import checkpoint
from distnn.run.checkpoint import CheckpointError, optimizer_sha256, read, weights_sha256, write

TENSORS = {
    "W1": np.arange(6, dtype="float32").reshape(3, 2),
    "W2": np.arange(6, dtype="float32").reshape(3, 2) + 10,
    "optimizer.m": np.linspace(0, 1, 12),
    "scaling.shift": np.zeros(0),
}
META = {"epoch": 3, "step": 180, "seed": 2**63 - 1, "learning_rate": 0.1, "layers": [2, 2, 2]}


def same(a, b):
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype
        and a[name].shape == b[name].shape
        and a[name].tobytes() == b[name].tobytes()
        for name in a
    )


def refusal(path):
    """The error that reading raises, or None if the content is that of TENSORS and META."""
    try:
        found = read(path)
    except CheckpointError as error:
        return error
    assert same(found.tensors, TENSORS)
    assert found.meta == META
    return None


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The bytes of a sound checkpoint."""
    return write(tmp_path_factory.mktemp("sound"), "step-1", TENSORS, META).read_bytes()


def with_header(content, change, body=None):
    """`content` with its header changed by a function."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header = change(header) or header
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + (content[8 + length :] if body is None else body)


def test_what_is_read_is_what_was_written(tmp_path):
    path = write(tmp_path / "made", checkpoint.step_name(180), TENSORS, META)
    assert path.name == "step-0000000180.safetensors"
    found = read(path)
    assert same(found.tensors, TENSORS)
    assert found.meta == META
    assert [one.name for one in path.parent.iterdir()] == [path.name]


arrays = hnp.arrays(
    st.sampled_from(["<f4", "<f8", ">f4", ">f8", "<i8", "<u8", "u1"]).map(np.dtype),
    hnp.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=4),
    elements={"allow_nan": False, "allow_infinity": False},
)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=5).filter(
    lambda name: name != "__metadata__"
)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.dictionaries(names, arrays, max_size=4), st.dictionaries(names, plain, max_size=4))
def test_any_tensors_and_metadata(tmp_path_factory, tensors, meta):
    path = write(tmp_path_factory.getbasetemp(), "any", tensors, meta)
    found = read(path)
    assert found.meta == meta
    little = {name: array.astype(array.dtype.newbyteorder("<")) for name, array in tensors.items()}
    assert same(found.tensors, little)


def test_views_are_written_in_c_layout(tmp_path):
    W = np.arange(12.0).reshape(3, 4)
    found = read(write(tmp_path, "a", {"a": W.T, "b": W[:, ::2]}, {})).tensors
    assert np.array_equal(found["a"], W.T)
    assert np.array_equal(found["b"], W[:, ::2])


@pytest.mark.parametrize(
    ("name", "tensors", "meta"),
    [
        ("../a", {}, {}),
        (".a", {}, {}),
        ("a/b", {}, {}),
        ("a", {"x": np.array(["text"])}, {}),
        ("a", {"x": np.array([None])}, {}),
        ("a", {"x": np.zeros(2, "complex128")}, {}),
        ("a", {}, {"loss": math.nan}),
    ],
)
def test_what_no_checkpoint_holds(tmp_path, name, tensors, meta):
    with pytest.raises(ValueError, match=r"."):
        write(tmp_path, name, tensors, meta)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_not_finite_is_refused(tmp_path, value, dtype):
    path = write(tmp_path, "a", {"W1": np.array([1, value], dtype)}, {})
    with pytest.raises(CheckpointError, match="W1 holds NaN or infinity"):
        read(path)


# 2,000 damaged files in all.
@settings(max_examples=1000, deadline=None)
@given(st.data())
def test_flipped_bytes(tmp_path_factory, sound, data):
    content = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "flipped.safetensors"
    path.write_bytes(content)
    error = refusal(path)
    assert error is None or str(path) in str(error)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_cut_grown_or_shifted(tmp_path_factory, sound, data):
    begin = data.draw(st.integers(0, len(sound)))
    end = data.draw(st.integers(begin, len(sound)))
    filling = data.draw(st.binary(max_size=20))
    path = tmp_path_factory.getbasetemp() / "cut.safetensors"
    path.write_bytes(sound[:begin] + filling + sound[end:])
    if path.read_bytes() != sound:
        assert isinstance(refusal(path), CheckpointError)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda b: struct.pack("<Q", len(b)) + b))
def test_anything_else(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "else.safetensors"
    path.write_bytes(content)
    assert isinstance(refusal(path), CheckpointError)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(TENSORS)), st.sampled_from(["dtype", "shape", "data_offsets"]),
       st.sampled_from(["F32", "F64", "I64", "BF16", "BOOL", "F8_E4M3", "", None, 7])
       | st.lists(st.integers(-3, 2**65) | st.integers(0, 12) | st.none(), max_size=4))  # fmt: skip
def test_wrong_fields_of_a_tensor(tmp_path_factory, sound, name, field, value):
    def change(header):
        header[name][field] = value

    path = tmp_path_factory.getbasetemp() / "field.safetensors"
    path.write_bytes(with_header(sound, change))
    refusal(path)


def swapped(header):
    header["W1"], header["W2"] = header["W2"], header["W1"]


def reshaped(header):
    header["W1"]["shape"] = [2, 3]


def retyped(header):
    header["optimizer.m"]["dtype"] = "I64"


def renamed(header):
    header["W3"] = header.pop("W2")


def overlapping(header):
    header["W2"]["data_offsets"] = header["W1"]["data_offsets"]


def without_digest(header):
    del header["__metadata__"]["sha256"]


def foreign(header):
    del header["__metadata__"]


def older_position(header):
    strings = header["__metadata__"]
    strings["distnn"] = strings["distnn"].replace("180", "120")


def number_as_metadata(header):
    header["__metadata__"] = 5


def shape_of_terabytes(header):
    header["W1"]["shape"] = [2**40, 2**40]


def nested(header):
    return [header]


@pytest.mark.parametrize(
    "change",
    [swapped, reshaped, retyped, renamed, overlapping, without_digest, foreign, older_position,
     number_as_metadata, shape_of_terabytes, nested],
)  # fmt: skip
def test_changed_headers(tmp_path, sound, change):
    path = tmp_path / "changed.safetensors"
    path.write_bytes(with_header(sound, change))
    error = refusal(path)
    assert isinstance(error, CheckpointError)
    assert str(error).startswith(str(path))


@pytest.mark.parametrize("text", ["", "5", "{", "[" * 100_000, "9" * 5000, '{"a": ' * 9999])
def test_forged_digest(tmp_path, text):
    path = tmp_path / "forged.safetensors"
    safetensors.numpy.save_file({}, path, {"distnn": text, "sha256": checkpoint.digest({}, text)})
    with pytest.raises(CheckpointError, match="not written by distnn"):
        read(path)


@pytest.mark.parametrize("length", [2**20 + 1, 2**31, 2**40, 2**63, 2**64 - 1])
def test_huge_headers(tmp_path, sound, length):
    path = tmp_path / "huge.safetensors"
    path.write_bytes(struct.pack("<Q", length) + sound[8:])
    assert "header" in str(refusal(path))
    with path.open("r+b") as file:  # a sparse file that really is so large
        file.truncate(min(length + 8, 2**40))
    assert isinstance(refusal(path), CheckpointError)


def test_deeply_nested_header(tmp_path):
    text = b"[" * 100_000 + b"]" * 100_000
    path = tmp_path / "nested.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    assert isinstance(refusal(path), CheckpointError)


def test_no_file_no_regular_file(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        read(tmp_path / "none")
    with pytest.raises(CheckpointError, match="not a file"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="not a file"):
        read(tmp_path / "pipe")


def test_newest_passes_over_damaged_ones(tmp_path):
    for step in (60, 120, 180):
        write(tmp_path, checkpoint.step_name(step), TENSORS, {"step": step})
    damaged = tmp_path / "step-0000000180.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    skipped = []
    assert checkpoint.newest(tmp_path, skipped.append).meta == {"step": 120}
    assert [str(damaged) in str(error) for error in skipped] == [True]


def test_newest_of_none_and_of_damaged_ones_only(tmp_path):
    assert checkpoint.newest(tmp_path, print) is None
    assert checkpoint.newest(tmp_path / "missing", print) is None
    (tmp_path / "step-1.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="none of 1 checkpoints loads"):
        checkpoint.newest(tmp_path, [].append)


def test_find(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoint.find(tmp_path, "latest")
    last = write(tmp_path, checkpoint.step_name(2), {}, {})
    write(tmp_path, checkpoint.step_name(1), {}, {})
    assert checkpoint.find(tmp_path, "latest") == last
    assert checkpoint.find(tmp_path, "best") == tmp_path / "best.safetensors"
    assert checkpoint.find(tmp_path, "a/b.safetensors").parts == ("a", "b.safetensors")


def test_prune_keeps_the_newest_and_the_best(tmp_path):
    paths = [write(tmp_path, checkpoint.step_name(n), TENSORS, {"step": n}) for n in range(8, 14)]
    best = checkpoint.mark_best(paths[0])
    left = tmp_path / ".step-0000000009.safetensors.1.0123abcd.tmp"
    left.write_bytes(b"torn")
    checkpoint.prune(tmp_path, 2)
    assert sorted(tmp_path.iterdir()) == sorted([best, paths[4], paths[5]])
    assert read(best).meta == {"step": 8}
    checkpoint.mark_best(paths[5])
    assert read(best).meta == {"step": 13}


def test_best_without_hard_links(tmp_path, monkeypatch):
    path = write(tmp_path, checkpoint.step_name(1), TENSORS, META)

    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    assert refusal(checkpoint.mark_best(path)) is None


SMALL_FILES_ONLY = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from distnn.run.checkpoint import CheckpointError, step_name, write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for step in (2, 1):
    try:
        write(Path(sys.argv[1]), step_name(step), {"W1": np.zeros(5000)}, {})
    except CheckpointError as error:
        print(error)
"""


def test_no_space_leaves_the_others(tmp_path):
    """No file may grow beyond 1,000 bytes: what a full disk and a quota do; in a child, because
    the limit would hold for what pytest prints, too."""
    first = write(tmp_path, checkpoint.step_name(1), TENSORS, META)
    command = [sys.executable, "-c", SMALL_FILES_ONLY, tmp_path]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.count("cannot be written") == 2
    assert list(tmp_path.iterdir()) == [first]
    assert refusal(first) is None


def test_directory_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        write(tmp_path / "file", "step-1", TENSORS, META)


def test_killed_writers_leave_no_torn_checkpoint(tmp_path):
    code = (
        "import sys, pathlib, numpy as np\n"
        "directory, tensors = pathlib.Path(sys.argv[1]), {'W1': np.ones(20_000)}\n"
        "from distnn.run import checkpoint\n"
        "for step in range(10**6):\n"
        "    name = checkpoint.step_name(step)\n"
        "    checkpoint.write(directory, name, tensors, {'s': step})\n"
        "    checkpoint.prune(directory, 2)\n"
        "    print(step, flush=True)\n"
    )
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE
        ) as writer:
            for _ in range(7):
                writer.stdout.readline()
            writer.kill()
        for path in checkpoint.saved(tmp_path):
            assert read(path).meta == {"s": int(path.name[5:15])}
    checkpoint.prune(tmp_path, 1)
    assert len(list(tmp_path.iterdir())) == 1


def test_weights_sha256_is_over_the_bytes_in_order():
    W1, W2 = np.arange(6.0).reshape(2, 3), np.ones((4, 1))
    expected = hashlib.sha256(struct.pack("<6d4d", 0, 1, 2, 3, 4, 5, 1, 1, 1, 1)).hexdigest()
    assert weights_sha256([W1, W2]) == expected
    assert weights_sha256([np.asfortranarray(W1), W2.astype(">f8")]) == expected
    single = hashlib.sha256(struct.pack("<6f", 0, 1, 2, 3, 4, 5)).hexdigest()
    assert weights_sha256([W1.astype("float32")]) == single
    assert weights_sha256([W2, W1]) != expected


def test_optimizer_sha256_is_in_name_order():
    m, v = np.arange(3.0), np.ones(2)
    assert optimizer_sha256({"v": v, "m": m}) == weights_sha256([m, v])
    assert optimizer_sha256({}) == hashlib.sha256(b"").hexdigest()


def test_errors_are_input_errors():
    assert issubclass(CheckpointError, InputError)
    assert CheckpointError.exit_code == 2
