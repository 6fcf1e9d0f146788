"""The exchange between nodes: buckets of the gradient travel while the passes go on.

A forward pass waits for a bucket no earlier than it needs its weights, see `engine`. The buckets
are moved on by a thread beside the passes, because MPI moves data when it is called and a large
product calls nobody for tens of milliseconds; where MPI allows a single thread (it was not started
with MPI_THREAD_MULTIPLE), by the passes themselves at the edges of their blocks.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from distnn.parallel.comm.mpi import MPI
from distnn.parallel.comm.shared_memory import SharedMemory
from distnn.parallel.reduction.buckets import (
    Block,
    Bucket,
    backward_order,
    plan_buckets,
    plan_matrix_buckets,
)
from distnn.parallel.reduction.engine import Clipping, Engine
from distnn.parallel.reduction.exchange import Exchange, Layout, Rule
from distnn.parallel.reduction.gradients import SharedGradients
from distnn.parallel.reduction.norm_exchange import MakeRoles, NormExchange
from distnn.parallel.reduction.progress_thread import ProgressThread
from distnn.parallel.reduction.step_flags import StepFlags
from distnn.parallel.reduction.transfer import (
    KINDS,
    Roles,
    Scratch,
    Transfer,
    everywhere_roles,
    matrix_roles,
    rank0_roles,
    sharded_roles,
)

POLLS = 1_000  # some milliseconds: how often a waiting rank looks whether others still live
PROBES = 2  # calls of MPI in a tick: each takes in no more than a part of what has come meanwhile


_ROLES: dict[str, MakeRoles] = {
    "sharded": lambda bucket, nodes: sharded_roles(bucket.region, nodes),
    "rank0": lambda bucket, nodes: rank0_roles(bucket.region, nodes),
    "everywhere": lambda bucket, nodes: everywhere_roles(bucket.region, nodes),
}


class BucketExchange(Exchange):
    """The exchange of one rank of several nodes; updates as the `Roles` of nodes say."""

    def __init__(
        self, memory: SharedMemory, layout: Layout, *, update: str, clip_norm: float | None
    ) -> None:
        super().__init__(memory, layout, update)
        sharded = self.update == "sharded"
        comm, by_matrix = self.comm, layout.by_matrix
        owners = layout.owners(comm.size if sharded else 1) if by_matrix else ()
        self.ownership = replace(self.ownership, rank0_updates=not sharded, owners=owners)
        roles = self._matrix_roles if sharded and by_matrix else _ROLES[self.update]
        if layout.wire != "float32" and not by_matrix:
            roles = _ROLES["everywhere"]  # weights, which are not rounded, stay where they are
        gradients = SharedGradients(memory, self.ownership, layout.size, layout.dtype)
        self.tasks, self.vectors = gradients.tasks, gradients.vectors
        self.weights = memory.array((layout.size,), layout.dtype)
        held = layout.size if comm.node == 0 else 0
        self.state = {name: memory.array((held,), layout.dtype) for name in layout.state}
        squares = memory.array((len(layout.ends),), np.float64)

        buckets = (
            plan_matrix_buckets(layout.grids)
            if by_matrix
            else plan_buckets(layout.grids, layout.dtype.itemsize)
        )
        self._buckets, self._status = buckets, comm.status
        self._flags = StepFlags(memory, len(buckets))
        self._steps = self._count = self._last_stop = 0
        self._needed = _buckets_by_block(buckets)
        self._transfers = self._make_transfers(gradients, roles, keep=clip_norm is not None)
        clipping = None
        if clip_norm is not None:
            norms = (
                NormExchange(comm, layout, buckets, squares, roles) if comm.node_rank == 0 else None
            )
            clipping = Clipping(clip_norm, layout.dtype, squares, norms)
        events = len(backward_order(layout.grids))
        self._engine = Engine(comm, self.ownership, self._transfers, self._flags, events, clipping)
        self.before_weights, self.after_gradient = self._await_weights, self._complete_gradient
        has_threads = MPI.Query_thread() == MPI.THREAD_MULTIPLE
        self._progress = ProgressThread(self._tick, start=has_threads)

    def start(self, rules: Sequence[Rule], stop: int) -> None:
        """See `Exchange.start`: between a step's last forward and its last backward pass."""
        self.phase("wait")
        self._drain()
        self._last_stop = self._flags.stop_of_nodes()
        self._flags.request_stop(stop)
        self._steps += 1
        self._progress.work(lambda: self._engine.begin(rules))
        self._progress.wake()
        self.phase("elementwise")

    def finish(self) -> int:
        """The largest stop request of the step before; see `Exchange.finish`."""
        return self._last_stop

    def keep_norms(self) -> None:
        """See `Exchange.keep_norms`."""
        self.norms = self._engine.norms = []

    def flush(self) -> None:
        """See `Exchange.flush`."""
        for layer, block in self._needed:
            self._await_weights(layer, block)
        self._drain()

    def close(self) -> None:
        """See `Exchange.close`; after `flush`."""
        self.flush()
        self.end_thread()
        self._engine.close()

    def end_thread(self) -> None:
        """See `Exchange.end_thread`."""
        self._progress.close()

    def _await_weights(self, layer: int, block: int) -> None:
        """Wait until a block of columns of the layer's weights is that of the last step begun."""
        numbers, flags, steps = self._needed[layer, block], self._flags, self._steps
        if not flags.are_done(numbers, steps):
            self.phase("wait")
            self._until(lambda: flags.are_done(numbers, steps))
            self.phase("elementwise")
        flags.sync()

    def _complete_gradient(self, layer: int, block: int) -> None:
        """A block of rows of the layer's gradient is complete."""
        self.phase("exchange")
        self._count += 1
        self._flags.gradients_complete(self._count)
        self._progress.work(self._engine.move)
        self.phase("elementwise")

    def _drain(self) -> None:
        """Nothing of this rank's is under way any more."""
        self._until(lambda: self._engine.is_idle)
        self._progress.rest()

    def _until(self, done: Callable[[], bool]) -> None:
        polls = 0
        self._progress.rest()
        with self._status.waiting():
            while not done():
                if not self._progress.work(self._engine.move):
                    os.sched_yield()
                polls += 1
                if polls % POLLS == 0:
                    self._status.check()
        self._progress.wake()

    def _tick(self) -> bool:
        """While this rank computes: as much as has become possible since the last tick."""
        for _ in range(PROBES):
            self.comm.mpi.Iprobe()
        return self._engine.move()

    def _matrix_roles(self, bucket: Bucket, nodes: int) -> Roles:
        return matrix_roles(bucket.region, nodes, self.ownership.owner_node(bucket.matrix))

    def _make_transfers(
        self, gradients: SharedGradients, roles: MakeRoles, *, keep: bool
    ) -> list[Transfer]:
        """The buckets that this rank handles, in the order in which they are completed."""
        comm, layout = self.comm, self.layout
        scratch = Scratch(max(bucket.region.size for bucket in self._buckets), layout.dtype)
        wire = layout.make_wire()
        return [
            Transfer(
                bucket, roles(bucket, comm.nodes), layout, self.ownership, comm.node,
                gradients.partial_sums, self.weights, scratch, wire, keep=keep,
            )
            for bucket in sorted(self._buckets, key=lambda one: (one.position, one.number))
            if self.ownership.handler(comm.node, bucket.number) == comm.rank
        ]  # fmt: skip

    # --- weights and state of rank 0 -----------------------------------------------------------

    def share_weights(self) -> None:
        """See `Exchange.share_weights`."""
        super().share_weights()
        for transfer in self._transfers:
            transfer.load_weights()
        self.barrier.wait()

    def share_state(self) -> None:
        """See `Exchange.share_state`."""
        self.barrier.wait()
        self._move_state(to_owners=True)

    def collect_state(self) -> None:
        """See `Exchange.collect_state`."""
        self.flush()
        self._move_state(to_owners=False)
        self.barrier.wait()

    def _move_state(self, *, to_owners: bool) -> None:
        """The state of each region between its owner and the first node's vectors."""
        for transfer in self._transfers:
            updates = transfer.roles.updates
            for node, region in enumerate(updates):
                known = node > 0 and region == updates[0] and not to_owners
                if not region.size or known:
                    continue
                for name in self.layout.state:
                    self._move_region(transfer, node, name, to_owners)

    def _move_region(self, transfer: Transfer, node: int, name: str, to_owners: bool) -> None:
        comm = self.comm
        if comm.node not in (0, node):
            return
        view = transfer.roles.updates[node].view(self.state[name]) if comm.node == 0 else None
        own = transfer.state[name] if comm.node == node else None
        if view is not None and own is not None:
            np.copyto(*((own, view) if to_owners else (view, own)))
            return
        other = self.ownership.handler(node if comm.node == 0 else 0, transfer.number)
        if (view is not None) == to_owners:
            source = np.ascontiguousarray(view) if own is None else own
            comm.complete([comm.mpi.Isend(source, other, tag=KINDS * transfer.number)])
        else:
            target = np.empty(transfer.roles.updates[node].shape, self.layout.dtype)
            comm.complete([comm.mpi.Irecv(target, other, tag=KINDS * transfer.number)])
            np.copyto(own if view is None else view, target)  # type: ignore[arg-type]


def _buckets_by_block(buckets: list[Bucket]) -> dict[Block, list[int]]:
    """Which buckets a block of columns needs."""
    needed: dict[Block, list[int]] = {}
    for bucket in buckets:
        for block in bucket.needed_by:
            needed.setdefault(block, []).append(bucket.number)
    return needed
