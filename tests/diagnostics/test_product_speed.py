"""The speed of products, here and in a process with another environment."""

import os
import sys
from pathlib import Path

import pytest

from distnn import doctor
from distnn.diagnostics import product_speed
from distnn.diagnostics.product_speed import speed_in, without
from distnn.run.kernels import VARIABLES


def test_speed_in_a_process_of_its_own() -> None:
    speed = speed_in(without("OPENBLAS_CORETYPE"))
    assert speed is not None
    assert speed > 0.1
    assert 0.1 < product_speed.product_speed(0.01) < 1e5


def test_no_module_of_the_working_directory_is_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("distnn", "numpy", "time"):
        (tmp_path / f"{name}.py").write_text("open('executed', 'w')")
    monkeypatch.chdir(tmp_path)
    assert speed_in(without("OPENBLAS_CORETYPE")) is not None
    assert not (tmp_path / "executed").exists()


def test_a_process_that_fails_or_hangs_has_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_speed, "PATIENCE", 0.01)
    assert speed_in(os.environ) is None
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert speed_in(os.environ) is None


def test_the_doctor_says_what_is_lost_and_what_to_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert doctor.kernels() == []
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "512")
    tried = []

    def speed(environment: dict[str, str]) -> float:
        tried.append([environment.get(name) for name in VARIABLES])
        return 100.0 * len(tried)

    monkeypatch.setattr(product_speed, "speed_in", speed)
    (line,) = doctor.kernels()
    assert line.endswith("measured: 100 GFLOP/s as it is, 200 then")
    assert tried == [[None, "512"], [None, None]]
    monkeypatch.setattr(product_speed, "speed_in", lambda _environment: None)
    (line,) = doctor.kernels()
    assert "unset OPENBLAS_L2_SIZE" in line
