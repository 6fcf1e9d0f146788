"""Which slices belong to which rank and node: closed formulas that every rank evaluates."""

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
    """

    slices: int
    node_ranks: list[tuple[int, int]]
    rank0_updates: bool = False

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
        alone = self.rank0_updates and node == 0
        return first if alone else first + bucket % (end - first)

    def node_pieces(self, node: int) -> list[tree.Node]:
        """The pieces of a node's whole run of slices: what other nodes need to know of it."""
        first, end = self.node_ranks[node]
        return tree.pieces(self.run(first)[0], self.run(end - 1)[1], self.slices)
