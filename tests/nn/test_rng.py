"""Random numbers by place: the same for one place every time, others elsewhere."""

import itertools

import numpy as np
import pytest

from distnn.nn.rng import DROPOUT, WEIGHTS, Stream

PLACES = list(itertools.product((0, 1, 7), (0, 1), (0, 3)))


def drawn(stream: Stream, place: tuple[int, int, int]) -> bytes:
    return stream.at(*place).random(16).tobytes()


def test_a_place_has_its_own_numbers_in_whatever_order_it_is_visited() -> None:
    stream = Stream(5, DROPOUT)
    forwards = {place: drawn(stream, place) for place in PLACES}
    backwards = {place: drawn(Stream(5, DROPOUT), place) for place in reversed(PLACES)}
    again = {place: drawn(stream, place) for place in reversed(PLACES)}
    assert forwards == backwards == again
    assert len(set(forwards.values())) == len(PLACES)


def test_purposes_and_seeds_are_apart() -> None:
    seeds = (0, 1, 2**63, 2**64 - 1)
    found = {drawn(Stream(seed, purpose), (0, 0, 0)) for seed in seeds for purpose in (1, 2)}
    assert {WEIGHTS, DROPOUT} == {1, 2}
    assert len(found) == 2 * len(seeds)


@pytest.mark.parametrize("place", PLACES)
def test_long_draws_do_not_reach_another_place(place: tuple[int, int, int]) -> None:
    long = Stream(3, DROPOUT).at(*place).random(100_000)
    others = [Stream(3, DROPOUT).at(*other).random(4) for other in PLACES if other != place]
    assert not np.isin(np.concatenate(others), long).any()
