"""Which slices belong to which rank and node: closed formulas that every rank evaluates."""

from collections.abc import Sequence
from dataclasses import dataclass

from distnn.parallel.reduction import tree
from distnn.parallel.reduction.partition import rank_slices


@dataclass(frozen=True)
class Ownership:
    """The division of S slices among ranks and nodes.

    Attributes:
        slices: S.
        node_ranks: for every node, its first rank and one past its last.
        rank0_updates: whether rank 0 alone updates the weights.
        owners: where whole matrices are updated, the rank that does it, of each matrix; each is
            then a bucket of its number.
    """

    slices: int
    node_ranks: list[tuple[int, int]]
    rank0_updates: bool = False
    owners: tuple[int, ...] = ()

    @property
    def ranks(self) -> int:
        """How many ranks there are."""
        return self.node_ranks[-1][1]

    def run(self, rank: int) -> tuple[int, int]:
        """The slices of `rank`: first, and one past the last."""
        return rank_slices(rank, self.ranks, self.slices)

    def pieces(self, rank: int) -> list[tree.Node]:
        """The nodes of the tree that `rank` adds up by itself."""
        return tree.pieces(*self.run(rank), self.slices)

    def rank_pieces(self, node: int) -> list[tree.Node]:
        """The pieces of all ranks of a node, from left to right."""
        return [piece for rank in range(*self.node_ranks[node]) for piece in self.pieces(rank)]

    def handler(self, node: int, bucket: int) -> int:
        """The rank of a node that handles a bucket."""
        first, end = self.node_ranks[node]
        if self.owners and first <= self.owners[bucket] < end:
            return self.owners[bucket]
        alone = self.rank0_updates and node == 0
        return first if alone else first + bucket % (end - first)

    def owner_node(self, matrix: int) -> int:
        """The node of the rank that updates a matrix."""
        owner = self.owners[matrix]
        return next(n for n, (first, end) in enumerate(self.node_ranks) if first <= owner < end)

    def node_pieces(self, node: int) -> list[tree.Node]:
        """The pieces of a node's whole run of slices: what other nodes need to know of it."""
        first, end = self.node_ranks[node]
        return tree.pieces(self.run(first)[0], self.run(end - 1)[1], self.slices)


def matrix_owners(sizes: Sequence[int], ranks: int) -> tuple[int, ...]:
    """Which rank updates which matrix: the largest first, each to the rank with least so far."""
    owners, loads = [0] * len(sizes), [0] * ranks
    for matrix in sorted(range(len(sizes)), key=lambda one: -sizes[one]):
        owners[matrix] = loads.index(min(loads))
        loads[owners[matrix]] += sizes[matrix]
    return tuple(owners)
