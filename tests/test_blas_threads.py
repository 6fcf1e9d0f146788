"""One BLAS thread per rank, unless the user has chosen."""

import os

import numpy as np  # noqa: F401 - loads the BLAS that is asked below
import pytest
from threadpoolctl import threadpool_info

from distnn.blas_threads import VARIABLES, asked_for, default_to_one, one_thread_per_rank
from distnn.errors import InputError
from distnn.nn import onednn


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")


def blas_threads() -> list[int]:
    return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]


def test_without_a_choice_it_is_one() -> None:
    assert not asked_for()
    default_to_one()
    assert {os.environ[name] for name in VARIABLES} == {"1"}
    assert asked_for()


@pytest.mark.parametrize("name", VARIABLES)
def test_a_choice_is_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "3")
    default_to_one()
    assert {one: os.environ[one] for one in VARIABLES} == dict.fromkeys(VARIABLES, "") | {name: "3"}


def test_inside_the_context_and_after_it() -> None:
    before = blas_threads()
    with one_thread_per_rank():
        assert set(blas_threads()) <= {1}
    assert blas_threads() == before


def test_the_context_leaves_a_choice_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLES[0], "2")
    before = blas_threads()
    with one_thread_per_rank():
        assert blas_threads() == before


def test_openmp_runs_one_thread_as_well() -> None:
    """oneDNN divides its products among as many threads as OpenMP has."""
    try:
        onednn.shared()
    except InputError as error:
        pytest.skip(str(error))

    def threads() -> list[int]:
        found = [one for one in threadpool_info() if one["user_api"] == "openmp"]
        return [one["num_threads"] for one in found]

    before = threads()
    assert before
    with one_thread_per_rank("onednn"):
        assert set(threads()) == {1}
    assert threads() == before
