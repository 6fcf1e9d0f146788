"""Who owns which slices and which part of the vector: what each rank can tell of all others."""

from dataclasses import dataclass

from distnn.parallel.reduction import tree
from distnn.parallel.reduction.blocks import part
from distnn.parallel.reduction.partition import rank_slices


@dataclass(frozen=True)
class Ownership:
    """The division of S slices and a vector of `size` elements among ranks and nodes.

    The part of a rank is the part of the vector whose gradient it adds up and whose weights it
    updates. Who owns which part is all that tells the two kinds of update apart: unless
    `sharded`, rank 0 owns the whole vector.

    Attributes:
        node_ranks: for every node, its first rank and one past its last.
    """

    size: int
    slices: int
    node_ranks: list[tuple[int, int]]
    sharded: bool

    @property
    def ranks(self) -> int:
        """How many ranks there are."""
        return self.node_ranks[-1][1]

    def part(self, rank: int) -> tuple[int, int]:
        """First and one-past-last element of the vector's part that `rank` owns."""
        if self.sharded:
            return part(self.size, self.ranks, rank)
        return (0, self.size) if rank == 0 else (self.size, self.size)

    def node_part(self, node: int) -> tuple[int, int]:
        """The parts of a node's ranks, which follow one another, together."""
        first, end = self.node_ranks[node]
        return self.part(first)[0], self.part(end - 1)[1]

    def run(self, rank: int) -> tuple[int, int]:
        """The slices of `rank`."""
        return rank_slices(rank, self.ranks, self.slices)

    def pieces(self, rank: int) -> list[tree.Node]:
        """The nodes of the tree that `rank` adds up by itself."""
        return tree.pieces(*self.run(rank), self.slices)

    def rank_pieces(self, node: int) -> list[tree.Node]:
        """The pieces of all ranks of a node, from left to right."""
        return [piece for rank in range(*self.node_ranks[node]) for piece in self.pieces(rank)]

    def node_pieces(self, node: int) -> list[tree.Node]:
        """The pieces of a node's whole run of slices: what it has to tell the other nodes."""
        first, end = self.node_ranks[node]
        return tree.pieces(self.run(first)[0], self.run(end - 1)[1], self.slices)

    def shared_elements(self, node: int, states: int) -> int:
        """How many numbers a node shares: weights, `states` vectors of the optimizer, partial sums.

        These are the partial sums of its own ranks, and the other nodes' of its part of the vector.
        """
        first, last = self.node_part(node)
        others = [other for other in range(len(self.node_ranks)) if other != node]
        received = sum(len(self.node_pieces(other)) for other in others) * (last - first)
        return (1 + states + len(self.rank_pieces(node))) * self.size + received
