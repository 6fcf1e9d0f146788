"""Who updates the weights where the user leaves it open."""

import pytest

from distnn.parallel.reduction.exchange import SMALL, chosen_update

LARGE = 100_000  # weights


@pytest.mark.parametrize("update", ["rank0", "sharded"])
def test_what_is_asked_for_is_done(update):
    for nodes, ranks, size, is_oversubscribed in ((1, 1, 9, True), (3, 2, LARGE, False)):
        assert chosen_update(update, nodes, ranks, size, is_oversubscribed) == update


@pytest.mark.parametrize(
    ("nodes", "ranks", "size", "is_oversubscribed", "expected"),
    [
        (1, 1, LARGE, False, "rank0"),  # there is nobody to share it with
        (1, 2, LARGE, False, "sharded"),
        (1, 64, LARGE, False, "sharded"),
        (1, 2, SMALL - 1, False, "rank0"),  # a barrier costs more
        (1, 2, SMALL, False, "sharded"),
        (1, 8, LARGE, True, "rank0"),
        (2, 1, SMALL - 1, True, "sharded"),  # gradients do not all flow to one node
    ],
)
def test_each_rank_updates_a_part_unless_one_alone_is_quicker(
    nodes, ranks, size, is_oversubscribed, expected
):
    assert chosen_update("auto", nodes, ranks, size, is_oversubscribed) == expected
