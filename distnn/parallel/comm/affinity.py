"""More ranks than cores on a node: how a rank waits there without keeping a core from others."""

import hashlib
import os
from pathlib import Path

import numpy as np

from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI

MAX_CORES = 8192
AUTOGROUPS = Path("/proc/sys/kernel/sched_autogroup_enabled")


def must_sleep(comm: Communicator) -> bool:
    """Whether a waiting rank of this node must sleep, because yielding would not be enough.

    With a core for each rank, polling is quickest. With fewer, a rank that yields its core
    (`sched_yield`) lets only those go on that are in its own scheduling group. Linux makes one of
    every session (autogroup, `man 7 sched`), and MPICH's launcher starts each rank in a new one.

    Collective over the node.
    """
    oversubscribed = is_oversubscribed(comm)
    return not share_group(comm) and oversubscribed


def is_oversubscribed(comm: Communicator) -> bool:
    """Whether this node has more ranks than cores for them. Collective over the node."""
    return comm.node_size > cores(comm)


def cores(comm: Communicator) -> int:
    """How many cores the ranks of this node may use between them. Collective over the node."""
    allowed = np.zeros(MAX_CORES, np.uint8)
    allowed[sorted(own_cores())] = 1
    comm.node_comm.Allreduce(MPI.IN_PLACE, allowed, MPI.MAX)
    return int(allowed.sum())


def share_group(comm: Communicator) -> bool:
    """Whether the ranks of this node are in one scheduling group. Collective over the node."""
    number = int.from_bytes(hashlib.sha256(_own_group()).digest()[:7])
    ends = np.array([number, -number], np.int64)
    comm.node_comm.Allreduce(MPI.IN_PLACE, ends, MPI.MAX)
    return int(ends[0]) == -int(ends[1])


def own_cores() -> set[int]:
    """The numbers of the cores that this rank may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _own_group() -> bytes:
    """What makes a scheduling group: the control group and, if enabled, the session."""
    group = _read(Path("/proc/self/cgroup"))
    if _read(AUTOGROUPS).strip() == b"1":
        group += _read(Path("/proc/self/autogroup"))
    return group


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # not Linux, or built without it
        return b""
