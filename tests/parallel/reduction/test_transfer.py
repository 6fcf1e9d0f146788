"""A bucket between nodes: their messages fit together, and what comes out is the update.

All nodes live in one process here; a message is a copy.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn.parallel.reduction import buckets as buckets_module
from distnn.parallel.reduction import tree
from distnn.parallel.reduction.buckets import Bucket, Region, plan_buckets, run
from distnn.parallel.reduction.exchange import Layout
from distnn.parallel.reduction.granules import GRANULE, Grid
from distnn.parallel.reduction.ownership import Ownership
from distnn.parallel.reduction.transfer import (
    Roles,
    Scratch,
    Transfer,
    everywhere_roles,
    rank0_roles,
    sharded_roles,
)

ROLES = {"rank0": rank0_roles, "sharded": sharded_roles, "everywhere": everywhere_roles}
GRIDS: tuple[Grid, ...] = (([3, 7], [40, 90]), ([10, 50], [100]), ([5], [30, 31]), ([2], [2]))
MakeRoles = Callable[[Region, int], Roles]


@pytest.fixture(autouse=True, scope="module")
def small_buckets():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(buckets_module, "BUCKET", 2 * GRANULE * 4)
        patched.setattr(buckets_module, "SMALL", GRANULE)
        yield


def definition(gradients: np.ndarray, a: int, b: int, wire: str = "float32") -> np.ndarray:
    if b - a == 1:
        return gradients[a] if wire == "float32" else rounded(gradients[a])
    m = tree.middle(a, b)
    total = definition(gradients, a, m, wire) + definition(gradients, m, b, wire)
    return total if wire == "float32" else rounded(total)


def rounded(numbers: np.ndarray) -> np.ndarray:
    """To 8 significant bits, ties to even: the numbers of these tests are far from 2**-126."""
    fraction, exponent = np.frexp(numbers.astype(np.float64))
    return np.ldexp(np.rint(fraction * 256), exponent - 8).astype(np.float32)


def rule(w: np.ndarray, g: np.ndarray, state: Sequence[np.ndarray], scratch: object) -> None:
    state[0][...] = state[0] / 2 + g
    w -= state[0]
    g.fill(np.nan)


class Cluster:
    """The nodes' ends of one bucket after the other."""

    def __init__(
        self, own: Ownership, make: MakeRoles, gradients: np.ndarray, wire: str, *, keep: bool
    ):
        layout = Layout(GRIDS, gradients.dtype, own.slices, ("v",), wire=wire)
        self.nodes = range(len(own.node_ranks))
        self.buckets = plan_buckets(GRIDS, gradients.itemsize)
        self.weights = [np.ones(layout.size, gradients.dtype) for _ in self.nodes]
        self.squares = [np.full(len(layout.ends), np.nan) for _ in self.nodes]
        largest = max(bucket.region.size for bucket in self.buckets)
        self.transfers: list[list[Transfer]] = []  # by node and bucket
        for node in self.nodes:
            sums = {piece: definition(gradients, *piece, wire) for piece in own.rank_pieces(node)}
            scratch = Scratch(largest, gradients.dtype)
            self.transfers.append([
                self._transfer(bucket, make, layout, own, node, sums, scratch, keep)
                for bucket in self.buckets
            ])  # fmt: skip

    def _transfer(
        self,
        bucket: Bucket,
        make: MakeRoles,
        layout: Layout,
        own: Ownership,
        node: int,
        sums: dict[tree.Node, np.ndarray],
        scratch: Scratch,
        keep: bool,
    ) -> Transfer:
        roles, weights = make(bucket.region, len(own.node_ranks)), self.weights[node]
        return Transfer(
            bucket, roles, layout, own, node, sums, weights, scratch, layout.make_wire(), keep=keep
        )

    def step(self, factor: np.float32 | None) -> None:
        """One bucket after the other, and with a factor all sums before all updates."""
        for ends in zip(*self.transfers, strict=True):
            self._sum_up(ends)
        for ends in zip(*self.transfers, strict=True):
            if _waits(ends):
                for node, end in enumerate(ends):
                    end.sum_squares(self.squares[node])
                    end.update(rule, factor)
            self._spread(ends)

    def _sum_up(self, ends: Sequence[Transfer]) -> None:
        for node, end in enumerate(ends):
            end.pack(10 * node)
        for node, end in enumerate(ends):
            for other, message in end.pieces_out.items():
                target = ends[other].pieces_in[node].bytes
                assert target.shape == message.bytes.shape
                target[:] = message.bytes
        for node, end in enumerate(ends):
            assert end.pieces_in.keys() == {
                other for other in self.nodes if node in ends[other].pieces_out
            }
            end.add_up()
            end.take_in_sum(node)
            if not _waits(ends):
                end.update(rule, None)
        if ends[0].number == 0:
            assert {end.largest_stop() for end in ends} == {10 * self.nodes[-1]}
        for node, end in enumerate(ends):
            others = [other for other in self.nodes if node in ends[other].sums_in]
            assert [other for other, _ in end.sums_out] == others
            for other, array in end.sums_out:
                ends[other].sums_in[node][:] = array.reshape(-1)
                ends[other].take_in_sum(node)

    def _spread(self, ends: Sequence[Transfer]) -> None:
        expected = [(node, origin) for node in self.nodes for origin in ends[node].weights_in]
        came = []
        for outgoing in ([end.weights_out for end in ends], [end.passes_on for end in ends]):
            for node, messages in enumerate(outgoing):
                for other, array in messages:
                    if array.size:
                        target = ends[other].weights_in[node]
                        assert target.size == array.size
                        target.reshape(-1)[:] = array.reshape(-1)
                        came.append((other, node))
        assert sorted(came) == sorted(expected)
        for end in ends:
            for origin in end.installs:
                end.install(origin)


def _waits(ends: Sequence[Transfer]) -> bool:
    """Whether an update waits for other parts of the sum, or for the norm."""
    return any(end.updates and not end.updates_at_once for end in ends)


@st.composite
def ownerships(draw: st.DrawFn) -> Ownership:
    sizes = draw(st.lists(st.integers(1, 3), min_size=2, max_size=5))
    edges = list(itertools.accumulate(sizes, initial=0))
    return Ownership(edges[-1] + draw(st.integers(0, 9)), list(itertools.pairwise(edges)))


@given(
    ownerships(),
    st.sampled_from(sorted(ROLES)),
    st.sampled_from([None, 0.25]),
    st.sampled_from(["float32", "bfloat16"]),
)
def test_all_nodes_have_the_update_of_the_definition(
    own: Ownership, update: str, factor: float | None, wire: str
) -> None:
    size = sum(rows[-1] * columns[-1] for rows, columns in GRIDS)
    draw = np.random.default_rng(own.slices)
    scales = 10.0 ** draw.integers(-3, 3, (own.slices, 1))
    gradients = (draw.standard_normal((own.slices, size)) * scales).astype("f4")
    short = None if factor is None else np.float32(factor)
    cluster = Cluster(own, ROLES[update], gradients, wire, keep=factor is not None)
    w, v = np.ones(size, "f4"), np.zeros(size, "f4")
    for ends in cluster.transfers:
        for end in ends:
            end.load_weights()
    for _ in range(2):
        g = definition(gradients, 0, own.slices, wire)
        rule(w, g.copy() if short is None else g * short, [v], ())
        cluster.step(short)
        for node in cluster.nodes:
            assert np.array_equal(cluster.weights[node], w), node
    if factor is not None:
        known = np.isfinite(cluster.squares)
        nodes = len(cluster.nodes)
        updates_all = update == "everywhere" or (nodes == 2 and update == "sharded")
        assert (known.sum(axis=0) == (nodes if updates_all else 1)).all()
        ends = Layout(GRIDS, np.dtype("f4"), 1).ends.tolist()
        for k, (lo, hi) in enumerate(itertools.pairwise([0, *ends])):
            for squares in (node[k] for node in cluster.squares if np.isfinite(node[k])):
                assert squares == np.vecdot(g[lo:hi], g[lo:hi])


@pytest.mark.parametrize("nodes", range(2, 7))
def test_roles_cover_a_region(nodes: int) -> None:
    for region in (run(500, 500 + 40 * GRANULE + 3), Region(100, 100 + 60 * 50, 50, 20, 50)):
        for make in ROLES.values():
            roles = make(region, nodes)
            for parts in (roles.adds, roles.updates, roles.spreads):
                assert len(parts) == nodes
            both = nodes == 2 and make is not rank0_roles
            adds, updates = (sum(part.size for part in parts) for parts in roles[:2])
            assert adds == region.size * (2 if both else 1)
            everywhere = make is everywhere_roles
            assert updates == region.size * (nodes if everywhere else 2 if both else 1)
            spread = 0 if both or everywhere else region.size
            assert sum(part.size for part in roles.spreads) == spread


@pytest.mark.parametrize("nodes", range(2, 7))
def test_so_many_gradients_go_over_a_nodes_link(nodes: int) -> None:
    """Of one piece per node: with rank 0's updates (2N - 3) / (N - 1) out of and into the first
    node, else 2 (N - 1) / N; of two nodes one each way. In bfloat16 it is half as many bytes."""
    own = Ownership(nodes, [(node, node + 1) for node in range(nodes)])
    size = nodes * (nodes - 1) * 4 * GRANULE
    bucket = Bucket(1, 0, ((1, 0),), run(0, size))
    for make in ROLES.values():
        rounds = make is everywhere_roles
        wire = "bfloat16" if rounds else "float32"
        layout = Layout((([size], [1]),), np.dtype("f4"), nodes, wire=wire)
        sent, received = np.zeros(nodes), np.zeros(nodes)
        for node in range(nodes):
            roles, sums = make(bucket.region, nodes), {(node, node + 1): np.zeros(size, "f4")}
            weights, scratch = np.zeros(size, "f4"), Scratch(size, layout.dtype)
            end = Transfer(
                bucket, roles, layout, own, node, sums, weights, scratch, layout.make_wire(),
                keep=False,
            )  # fmt: skip
            sent[node] += sum(message.bytes.size - 8 for message in end.pieces_out.values())
            received[node] += sum(message.bytes.size - 8 for message in end.pieces_in.values())
            sent[node] += sum(array.nbytes for _, array in end.sums_out)
            received[node] += sum(array.nbytes for array in end.sums_in.values())
            sent[node] += sum(array.nbytes for _, array in end.weights_out + end.passes_on)
            received[node] += sum(array.nbytes for array in end.weights_in.values())
        assert sent.sum() == received.sum()
        if nodes == 2:
            expected = np.array([1.0, 1.0])
        elif make is rank0_roles:
            expected = np.full(1, (2 * nodes - 3) / (nodes - 1))
        else:
            expected = np.full(nodes, 2 * (nodes - 1) / nodes)
        gradient = size * (2 if rounds else 4)
        assert sent[: len(expected)] / gradient == pytest.approx(expected)
        assert received[: len(expected)] / gradient == pytest.approx(expected)


def test_scratch_is_the_same_memory_each_time() -> None:
    scratch = Scratch(12, np.dtype("f8"))
    first, second = scratch.arrays(0, 2, (3, 4))
    assert not np.shares_memory(first, second)
    (again,) = scratch.arrays(1, 1, (2, 5))
    assert np.shares_memory(again, second)
    assert again.shape == (2, 5)
