"""Files that are whole or not there, and outputs that are no files."""

import errno
import os
import threading

import pytest

from distnn.run import files
from distnn.run.files import leftovers, write_output, write_whole


def fill(path):
    path.write_bytes(b"new")


@pytest.mark.parametrize("write", [write_whole, write_output])
def test_the_old_content_or_the_new(tmp_path, write):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(aside):
        aside.write_bytes(b"par")
        assert path.read_bytes() == b"old"
        raise OSError("injected")

    with pytest.raises(OSError, match="injected"):
        write(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    write(path, fill)
    assert path.read_bytes() == b"new"
    assert leftovers(tmp_path) == []


def test_an_output_behind_a_link(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    write_output(tmp_path / "link", fill)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_an_output_that_is_a_pipe(tmp_path):
    path, read = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    write_output(path, fill)
    reader.join(10)
    assert read == [b"new"]
    assert path.is_fifo()


def test_an_output_that_is_a_directory(tmp_path):
    with pytest.raises(IsADirectoryError):
        write_output(tmp_path, fill)
    assert list(tmp_path.iterdir()) == []


def test_the_content_is_on_the_disk_before_the_name_is_and_the_name_at_the_end(
    tmp_path, monkeypatch
):
    done = []

    def flush(handle):
        done.append("flush " + os.readlink(f"/proc/self/fd/{handle}").rpartition("/")[2][:5])

    def replace(old, new):
        done.append("rename")
        os.rename(old, new)

    monkeypatch.setattr(files.os, "fsync", flush)
    monkeypatch.setattr(files.os, "replace", replace)
    write_whole(tmp_path / "file", fill)
    assert done == ["flush .file", "rename", f"flush {tmp_path.name[:5]}"]


@pytest.mark.parametrize(("number", "is_raised"), [(errno.EIO, True), (errno.EINVAL, False)])
def test_a_directory_that_cannot_be_flushed(tmp_path, monkeypatch, number, is_raised):
    def fail(handle):
        raise OSError(number, "injected")

    monkeypatch.setattr(files.os, "fsync", fail)
    if is_raised:
        with pytest.raises(OSError, match="injected"):
            files.flush_directory(tmp_path)
    else:
        files.flush_directory(tmp_path)
