"""Messages between nodes by which each knows whether the others still make progress.

A thread on every node's leader reports to the first node's leader a few times in a stall timeout;
the answer says what that one knows of the others. The messages go through MPI, on a communicator of
their own, because MPI is known to reach every node, where sockets would need addresses, ports and
a way past firewalls. The thread is not the watchdog's: a stuck MPI is then a node that is silent
like any other, on which the watchdog acts.

A report waits for its answer before the next one is sent, and each side knows the other's last
message, so that no message is left over. A leader's last report says that its node is done; the
last answer comes when all nodes are, or when a rank has failed.
"""

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.parallel.comm.status import StatusTable

NUMBERS = 5  # of a report, and of an answer
EVENTS, LATE, FAILED, EXIT_CODE, LAST = range(NUMBERS)
REPORTS = 20  # in a stall timeout
LONGEST_INTERVAL = 2.0  # seconds
POLLS = 4  # in an interval, for messages
AFTER_FAILURE = 1.0  # seconds, at least, that a close waits for the others once a rank has failed
SHORT_PAUSE = 0.005  # seconds between two polls once this node is done or a rank has failed
HOST_BYTES = 64
_KEPT = MPI.Comm.Create_keyval()  # on a communicator: a heartbeat whose buffers MPI may still use


def interval(stall_timeout: float) -> float:
    """Seconds between two reports."""
    return min(stall_timeout / REPORTS, LONGEST_INTERVAL)


def is_possible(comm: Communicator) -> bool:
    """Whether there are several nodes, and an MPI for several threads. Collective."""
    return comm.nodes > 1 and -comm.largest(-MPI.Query_thread()) >= MPI.THREAD_MULTIPLE


class Heartbeat:
    """One leader's part in it. Made by all leaders together.

    Args:
        table: of this node. Progress on other nodes is written to it, and the failure of another
            node's rank, as one that has been reported.
        host: this node's name.

    Attributes:
        events: how often progress was seen on this node; the watchdog counts.
        late: the first rank of this node that has not arrived where others wait; -1: all have.
    """

    def __init__(self, comm: Communicator, table: StatusTable, host: str) -> None:
        assert comm.leader_comm is not None
        self.events, self.late = 0, -1
        self._comm, self._table = comm, table
        self._mpi = comm.leader_comm.Dup()
        self._mpi.Set_errhandler(MPI.ERRORS_RETURN)
        self._hosts = _host_names(self._mpi, host)
        self._latest = np.zeros((comm.nodes, NUMBERS), np.int64)  # report of each node
        self._latest[:, LATE] = -1
        self._received_at = [time.monotonic()] * comm.nodes
        self._inbox = np.zeros((comm.nodes, NUMBERS), np.int64)
        self._receiving: list[MPI.Request] = []
        self._sending: list[tuple[MPI.Request, np.ndarray]] = []
        self._closing, self._given_up = threading.Event(), threading.Event()
        self._is_complete = False
        work = self._answer_all if comm.node == 0 else self._report
        self._thread = threading.Thread(
            target=self._run, args=(work,), name="distnn heartbeat", daemon=True
        )
        self._thread.start()

    def suspects(self) -> list[tuple[int, str]]:
        """Nodes that have been silent for long, or have ranks that are late; as far as known here.

        Returns:
            For each of them its first such rank, and a description.
        """
        now, found = time.monotonic(), []
        for node in self._partners():
            first, end = self._comm.node_ranks[node]
            late, silent = int(self._latest[node, LATE]), now - self._received_at[node]
            if self._latest[node, LAST]:
                continue  # it is done
            if silent > self._comm.status.stall_timeout / 2:
                who = f"rank {first} on" if end - first == 1 else f"ranks {first} to {end - 1} on"
                text = f"{who} {self._hosts[node]}: no message for {silent:.0f} s"
                found.append((first, text))
            elif late >= 0:
                found.append((late, f"rank {late} on {self._hosts[node]} has not arrived"))
        return found

    def close(self) -> bool:
        """Wait until all leaders close; after a failure, not longer than needed.

        Whatever happens to another node meanwhile is for the watchdog to see, and a failure then.

        Returns:
            Whether the exchange is complete. Else its thread may still be inside MPI.
        """
        self._closing.set()
        until = None
        while self._thread.is_alive() and not self._given_up.is_set():
            self._thread.join(SHORT_PAUSE)
            if until is None and self._table.shared.failed:
                patience = max(3 * interval(self._comm.status.stall_timeout), AFTER_FAILURE)
                until = time.monotonic() + patience
            if until is not None and time.monotonic() > until:
                self._given_up.set()
        if self._is_complete:
            self._mpi.Free()
        else:
            self._mpi.Set_attr(_KEPT, self)
        return self._is_complete

    # --- the thread ----------------------------------------------------------------------------

    def _run(self, work: Callable[[], bool]) -> None:
        try:
            self._is_complete = work() and self._all_sent()
        except MPI.Exception:
            return  # this node is silent from now on

    def _report(self) -> bool:
        """Any leader but the first: report, and take in the answer, until it is the last one."""
        answer = self._inbox[0]
        while True:
            self._receiving = [self._mpi.Irecv(answer, 0)]
            self._send(0, self.events, self._closing.is_set())
            while not self._receiving[0].Test():
                if not self._pause():
                    return False
            self._take_in(0, answer)
            self._table.shared.events_elsewhere = int(answer[EVENTS])
            if answer[LAST]:
                return True
            due = time.monotonic() + interval(self._comm.status.stall_timeout)
            while time.monotonic() < due and not self._is_urgent():
                if not self._pause():
                    return False

    def _answer_all(self) -> bool:
        """The first leader: take in reports and answer them, until there is none to come."""
        nodes, shared = self._partners(), self._table.shared
        self._receiving = [self._mpi.Irecv(self._inbox[node], node) for node in nodes]
        active, done = set(nodes), set[int]()  # done: they wait for their last answer
        while active:
            for index in MPI.Request.Testsome(self._receiving) or ():
                node = nodes[index]
                self._take_in(node, self._inbox[node])
                failed = bool(shared.failed)
                if self._inbox[node, LAST]:
                    done.add(node)
                    continue
                self._send(node, self._events_beside(node), failed)
                if failed:
                    active.discard(node)
                else:
                    self._receiving[index] = self._mpi.Irecv(self._inbox[node], node)
            shared.events_elsewhere = self._events_beside(0)
            if shared.failed or (self._closing.is_set() and done == active):
                self._send_last(done)
                active -= done
                done.clear()
            if active and not self._pause():
                self._send_last(active)  # a report may be under way: who sent it must not wait
                return False
        return True

    def _send_last(self, nodes: set[int]) -> None:
        for node in nodes:
            self._send(node, self._events_beside(node), True)

    def _partners(self) -> Sequence[int]:
        """The nodes that this one exchanges messages with."""
        return range(1, self._comm.nodes) if self._comm.node == 0 else (0,)

    def _events_beside(self, node: int) -> int:
        """How often progress was seen on all nodes but one."""
        self._latest[0, EVENTS] = self.events
        return int(self._latest[:, EVENTS].sum() - self._latest[node, EVENTS])

    def _take_in(self, node: int, numbers: np.ndarray) -> None:
        self._latest[node], self._received_at[node] = numbers, time.monotonic()
        shared = self._table.shared
        if numbers[FAILED] and not shared.failed:
            self._table.claim_report()  # it is reported where it happened
            shared.exit_code, shared.failed = int(numbers[EXIT_CODE]), int(numbers[FAILED])

    def _send(self, node: int, events: int, last: bool) -> None:
        shared = self._table.shared
        values = [events, self.late, shared.failed, shared.exit_code, last]
        numbers = np.array(values, np.int64)
        self._forget_sent()
        self._sending.append((self._mpi.Isend(numbers, node), numbers))

    def _forget_sent(self) -> None:
        self._sending = [sent for sent in self._sending if not sent[0].Test()]

    def _all_sent(self) -> bool:
        self._forget_sent()
        while self._sending:
            if not self._pause():
                return False
            self._forget_sent()
        return True

    def _is_urgent(self) -> bool:
        return self._closing.is_set() or bool(self._table.shared.failed)

    def _pause(self) -> bool:
        """Wait a little; whether to go on."""
        if self._is_urgent():
            time.sleep(SHORT_PAUSE)
        else:
            self._closing.wait(interval(self._comm.status.stall_timeout) / POLLS)
        return not self._given_up.is_set()


def _host_names(comm: "MPI.Comm", name: str) -> list[str]:
    """The names of all nodes. Collective."""
    own = np.zeros(HOST_BYTES, np.uint8)
    text = name.encode()[:HOST_BYTES]
    own[: len(text)] = np.frombuffer(text, np.uint8)
    every = np.empty((comm.size, HOST_BYTES), np.uint8)
    comm.Allgather(own, every)
    return [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in every]
