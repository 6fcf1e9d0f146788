"""What nodes tell one another of their progress, while their ranks compute or wait.

A thread on every node's leader reports to the first node's leader a few times in a stall timeout,
and is answered what that one knows of the others. The messages go through MPI, on a communicator of
their own, because MPI is what is known to reach every node, where sockets would need addresses,
ports and a way past firewalls. The thread is not the watch's: an MPI that is stuck is then a
silence like any other, on which the watch acts.

A report waits for its answer before the next one is sent, and each side knows when the other says
no more, so that no message is left over. A leader's last report tells that its node is done; the
last answer comes when all nodes are, or with the news of a failure.
"""

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.parallel.comm.status import CODE, ELSEWHERE, FAILED, StatusTable

NUMBERS = 5  # of a report, and of an answer
MOVES, LATE, FAILURE, FAILURE_CODE, LAST = range(NUMBERS)
BEATS = 20  # reports in a stall timeout
LONGEST_BEAT = 2.0  # seconds
POLLS = 4  # looks for messages in a beat
AFTER_FAILURE = 1.0  # seconds, at least, that a close waits for the others once there is a failure
HURRY = 0.005  # seconds between two looks when there is no more to wait for
HOST_BYTES = 64
ABANDONED: list["Heartbeat"] = []  # MPI may still write to what they hold


def beat(stall_timeout: float) -> float:
    """Seconds between two reports."""
    return min(stall_timeout / BEATS, LONGEST_BEAT)


def can_be_felt(comm: Communicator) -> bool:
    """Whether nodes can tell one another of their progress. Collective."""
    if comm.nodes == 1:
        return False
    return -comm.largest(-MPI.Query_thread()) >= MPI.THREAD_MULTIPLE


class Heartbeat:
    """One leader's share of the exchange. Made by all leaders together.

    Args:
        board: of this node. Movements of other nodes are counted on it, and a failure of another
            node's rank is written on it, as if told already.
        host: this node's name.

    Attributes:
        moves: how often something was seen to move on this node; the watch counts.
        late: the first rank of this node that has not arrived where others wait; -1: all have.
    """

    def __init__(self, comm: Communicator, board: StatusTable, host: str) -> None:
        assert comm.leader_comm is not None
        self.moves, self.late = 0, -1
        self._comm, self._board = comm, board
        self._mpi = comm.leader_comm.Dup()
        self._mpi.Set_errhandler(MPI.ERRORS_RETURN)
        self._hosts = _names(self._mpi, host)
        self._latest = np.zeros((comm.nodes, NUMBERS), np.int64)  # what was heard of each node
        self._latest[:, LATE] = -1
        self._heard = [time.monotonic()] * comm.nodes  # and when
        self._inbox = np.zeros((comm.nodes, NUMBERS), np.int64)
        self._coming: list[MPI.Request] = []
        self._sending: list[tuple[MPI.Request, np.ndarray]] = []
        self._closing, self._given_up = threading.Event(), threading.Event()
        self._is_clean = False
        work = self._answer_all if comm.node == 0 else self._report
        self._thread = threading.Thread(
            target=self._run, args=(work,), name="distnn pulse", daemon=True
        )
        self._thread.start()

    def suspects(self) -> list[tuple[int, str]]:
        """Nodes that were not heard of for long, or have ranks that are late; as far as known.

        Returns:
            For each of them its first such rank, and words.
        """
        now, found = time.monotonic(), []
        for node in self._partners():
            first, end = self._comm.node_ranks[node]
            late, silent = int(self._latest[node, LATE]), now - self._heard[node]
            if self._latest[node, LAST]:
                continue  # it has come to its end
            if silent > self._comm.status.stall_timeout / 2:
                who = f"rank {first} on" if end - first == 1 else f"ranks {first} to {end - 1} on"
                words = f"{who} {self._hosts[node]}: nothing was heard for {silent:.0f} s"
                found.append((first, words))
            elif late >= 0:
                found.append((late, f"rank {late} on {self._hosts[node]} has not arrived"))
        return found

    def close(self) -> None:
        """Wait until all leaders close, and all is said; after a failure, not longer than needed.

        Whatever happens to another node meanwhile is for the watch to see, and is a failure then.
        """
        self._closing.set()
        until = None
        while self._thread.is_alive() and not self._given_up.is_set():
            self._thread.join(HURRY)
            if until is None and self._board.common[FAILED]:
                patience = max(3 * beat(self._comm.status.stall_timeout), AFTER_FAILURE)
                until = time.monotonic() + patience
            if until is not None and time.monotonic() > until:
                self._given_up.set()
        if self._is_clean:
            self._mpi.Free()
        else:
            ABANDONED.append(self)

    # --- the thread ----------------------------------------------------------------------------

    def _run(self, work: Callable[[], bool]) -> None:
        try:
            self._is_clean = work() and self._all_sent()
        except MPI.Exception:
            return  # nothing is heard any more

    def _report(self) -> bool:
        """Any leader but the first: report, and take in the answer, until it is the last one."""
        answer = self._inbox[0]
        while True:
            self._coming = [self._mpi.Irecv(answer, 0)]
            self._send(0, self.moves, self._closing.is_set())
            while not self._coming[0].Test():
                if not self._pause():
                    return False
            self._take_in(0, answer)
            self._board.common[ELSEWHERE] = answer[MOVES]
            if answer[LAST]:
                return True
            due = time.monotonic() + beat(self._comm.status.stall_timeout)
            while time.monotonic() < due and not self._is_urgent():
                if not self._pause():
                    return False

    def _answer_all(self) -> bool:
        """The first leader: take in reports and answer them, until there is none to come."""
        nodes, inbox = self._partners(), self._inbox
        coming = self._coming = [self._mpi.Irecv(inbox[node], node) for node in nodes]
        talking, done = set(nodes), set[int]()  # done: their last answer is still to come
        while talking:
            for index in MPI.Request.Testsome(coming) or ():
                node = nodes[index]
                self._take_in(node, inbox[node])
                failed = bool(self._board.common[FAILED])
                if inbox[node, LAST]:
                    done.add(node)
                    continue
                self._send(node, self._moves_beside(node), failed)
                if failed:
                    talking.discard(node)
                else:
                    coming[index] = self._mpi.Irecv(inbox[node], node)
            self._board.common[ELSEWHERE] = self._moves_beside(0)
            if self._board.common[FAILED] or (self._closing.is_set() and done == talking):
                for node in done:
                    self._send(node, self._moves_beside(node), True)
                talking -= done
                done.clear()
            if talking and not self._pause():
                for node in talking:  # its report may be under way: it must not wait for ever
                    self._send(node, self._moves_beside(node), True)
                return False
        return True

    def _partners(self) -> Sequence[int]:
        """The nodes that this one exchanges messages with."""
        return range(1, self._comm.nodes) if self._comm.node == 0 else (0,)

    def _moves_beside(self, node: int) -> int:
        """How often something moved on all nodes but one."""
        self._latest[0, MOVES] = self.moves
        return int(self._latest[:, MOVES].sum() - self._latest[node, MOVES])

    def _take_in(self, node: int, words: np.ndarray) -> None:
        self._latest[node], self._heard[node] = words, time.monotonic()
        common = self._board.common
        if words[FAILURE] and not common[FAILED]:
            self._board.claim()  # it is told where it happened
            common[CODE], common[FAILED] = words[FAILURE_CODE], words[FAILURE]

    def _send(self, node: int, moves: int, last: bool) -> None:
        common = self._board.common
        words = np.array([moves, self.late, common[FAILED], common[CODE], last], np.int64)
        self._sending = [sent for sent in self._sending if not sent[0].Test()]
        self._sending.append((self._mpi.Isend(words, node), words))

    def _all_sent(self) -> bool:
        while self._sending:
            self._sending = [sent for sent in self._sending if not sent[0].Test()]
            if self._sending and not self._pause():
                return False
        return True

    def _is_urgent(self) -> bool:
        return self._closing.is_set() or bool(self._board.common[FAILED])

    def _pause(self) -> bool:
        """Wait a little; whether to go on."""
        if self._is_urgent():
            time.sleep(HURRY)
        else:
            self._closing.wait(beat(self._comm.status.stall_timeout) / POLLS)
        return not self._given_up.is_set()


def _names(comm: "MPI.Comm", name: str) -> list[str]:
    """The names of all nodes. Collective."""
    own = np.zeros(HOST_BYTES, np.uint8)
    text = name.encode()[:HOST_BYTES]
    own[: len(text)] = np.frombuffer(text, np.uint8)
    every = np.empty((comm.size, HOST_BYTES), np.uint8)
    comm.Allgather(own, every)
    return [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in every]
