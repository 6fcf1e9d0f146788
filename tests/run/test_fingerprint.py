"""The fingerprint: plain values, cheap, compared by name."""

import json
import platform
import time
from pathlib import Path

import numpy as np

from distnn.run.fingerprint import differences, fingerprint


def test_plain_and_repeatable():
    here = fingerprint()
    assert json.loads(json.dumps(here)) == here == fingerprint()
    assert here["numpy"] == np.__version__
    assert here["python"] == platform.python_version()
    assert here["cpu"]
    assert here["blas"]
    assert not differences(here, here)


def test_cheap():
    fingerprint()
    start = time.perf_counter()
    fingerprint()
    assert time.perf_counter() - start < 0.1


def test_differences():
    here = {"numpy": "2.4.6", "blas_kernel": "Haswell", "python": "3.11"}
    recorded = {"numpy": "2.3.0", "blas_kernel": "Haswell", "python": "3.12", "cpu": "other"}
    assert differences(here, recorded) == [
        "numpy 2.4.6 here, 2.3.0 recorded",
        "cpu None here, other recorded",
    ]


def test_the_processor_is_the_model_that_linux_names(monkeypatch):
    text = "processor\t: 0\nmodel\t\t: 17\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu\n"
    monkeypatch.setattr(Path, "read_text", lambda path: text)
    assert fingerprint()["cpu"] == "Some CPU @ 2 GHz"
