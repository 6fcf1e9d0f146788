"""Variables that make OpenBLAS run older kernels: which are named, and when nothing is said."""

import pytest

from distnn.run.fingerprint import fingerprint
from distnn.run.kernels import AVX2, AVX512, VARIABLES, kernels_message, processor, replaced

NEW, OLD = AVX512 | AVX2 | {"sse2"}, AVX2 | {"sse2"}
TYPE = {"OPENBLAS_CORETYPE": "Haswell"}


@pytest.mark.parametrize("kernel", ["Haswell", "Zen", "Nehalem", "Prescott"])
def test_kernels_older_than_the_processor_are_named(kernel: str) -> None:
    line = replaced(kernel, {"OPENBLAS_CORETYPE": kernel, "OPENBLAS_L2_SIZE": "512"}, NEW)
    for word in (f"OPENBLAS_CORETYPE={kernel}", "OPENBLAS_L2_SIZE=512", "AVX-512",
                 "unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE"):  # fmt: skip
        assert word in line
    assert bool(replaced(kernel, TYPE, OLD)) == (kernel not in ("Haswell", "Zen"))


@pytest.mark.parametrize("kernel", ["SkylakeX", "Cooperlake", "SapphireRapids"])
def test_nothing_is_said_where_kernels_are_those_of_the_processor(kernel: str) -> None:
    assert replaced(kernel, {"OPENBLAS_CORETYPE": kernel}, NEW) == ""
    assert replaced("Haswell", {}, NEW) == ""  # an old OpenBLAS: there is nothing to unset
    assert replaced("Haswell", TYPE, OLD) == ""
    assert replaced("armv8", {"OPENBLAS_CORETYPE": "armv8"}, frozenset()) == ""


def test_a_cache_size_is_named() -> None:
    line = replaced("SkylakeX", {"OPENBLAS_L2_SIZE": "512"}, NEW)
    assert line.startswith("OPENBLAS_L2_SIZE=512 replaces")
    assert "unset OPENBLAS_L2_SIZE" in line


def test_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    facts = fingerprint() | {"blas": "openblas"}
    assert kernels_message(facts) == ""
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "512")
    assert fingerprint()["blas_l2_size"] == "512"
    assert "OPENBLAS_L2_SIZE" in kernels_message(facts)
    assert kernels_message(facts | {"product": "mkl 2026.2"}) == ""
    assert kernels_message(facts | {"blas": "mkl"}) == ""
    assert "sse2" in processor("flags").split() or not processor("flags")
