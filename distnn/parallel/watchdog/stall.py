"""When a job is stalled, and which ranks it waits for."""

from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.status import RankRow, StatusTable
from distnn.parallel.watchdog import heartbeat
from distnn.parallel.watchdog.heartbeat import Heartbeat
from distnn.parallel.watchdog.reports import HALTED, describe_rank, describe_work, process_state

WITHOUT_HEARTBEAT = 2  # stall timeouts that ranks wait for other nodes, where there is no heartbeat


class Stillness:
    """For how many seconds nothing has changed."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._seen: object = None

    def look(self, now: object, passed: float) -> None:
        """See what is `now`, some seconds after the look before."""
        self.seconds = self.seconds + passed if now == self._seen else 0.0
        self._seen = now


class StallDetector:
    """Looks at the status of the node's ranks, and at what is known of other nodes.

    Args:
        table: of this node.
        host: this node's name.
        has_heartbeat: whether nodes know of one another's progress.
        own: this node's part in that, on its leader.
    """

    def __init__(
        self,
        comm: Communicator,
        table: StatusTable,
        host: str,
        has_heartbeat: bool,
        own: Heartbeat | None,
    ) -> None:
        self._comm, self._table, self._host = comm, table, host
        self._has_heartbeat, self._heartbeat = has_heartbeat, own
        self._node, self._anywhere = Stillness(), Stillness()

    def look(self, passed: float) -> None:
        """See what changed in so many seconds; on the leader, for the other nodes, too."""
        rows = self._table.rows
        now = [(row.phase, row.steps, row.events, row.waiting) for row in rows]
        self._node.look(now, passed)
        self._anywhere.look((now, self._table.shared.events_elsewhere), passed)
        if self._heartbeat is not None:
            self._heartbeat.events += self._node.seconds == 0
            self._heartbeat.late = next((row.rank for row in rows if not row.has_arrived), -1)

    def stall(self) -> tuple[str, int] | None:
        """The message and the rank to blame if nothing moves any more; None if all is well.

        If all ranks of this node wait for other nodes, those must not move either.
        """
        timeout = self._comm.status.stall_timeout
        seconds = self._node.seconds
        if seconds < timeout:
            return None
        late = self._late()
        if not late and self._comm.nodes > 1:
            seconds = self._anywhere.seconds
            if seconds < self._limit_elsewhere(timeout):
                return None
        suspects = [(row.rank, self._describe(row)) for row in late] or self._suspects_elsewhere()
        lines = [text for _, text in suspects]
        arrived = [row for row in self._table.rows if row not in late]
        if late and arrived:
            ranks = ", ".join(str(row.rank) for row in arrived)
            lines.append(f"arrived, in {describe_work(self._comm.status.row)}: rank {ranks}")
        first = f"nothing moved for {seconds:.0f} s (--stall-timeout); the job ends"
        self._node.seconds = self._anywhere.seconds = 0.0
        return "\n  ".join([first, *lines]), suspects[0][0]

    def _late(self) -> list[RankRow]:
        """The ranks of this node that others wait for: they have not arrived, or cannot go on."""
        rows = self._table.rows
        late = [row for row in rows if not row.has_arrived]
        return late or [row for row in rows if process_state(row.process) in HALTED]

    def _limit_elsewhere(self, timeout: float) -> float:
        """Seconds in which there must be news of progress on other nodes.

        News are a report or two old, so that more time may lie between them; and who knows most
        reports a stall first: the first node's leader, then the other leaders.
        """
        if not self._has_heartbeat:
            return WITHOUT_HEARTBEAT * timeout
        reports = 2 if self._comm.rank == 0 else 4 if self._heartbeat is not None else 6
        return timeout + reports * heartbeat.interval(timeout)

    def _suspects_elsewhere(self) -> list[tuple[int, str]]:
        """What this rank's node waits for, as far as is known here: ranks and descriptions."""
        others = self._heartbeat.suspects() if self._heartbeat is not None else []
        leader = self._table.rows[0]
        return [*others, (leader.rank, self._describe(leader))]

    def _describe(self, row: RankRow) -> str:
        """A rank, where it is, and why it is stuck there."""
        others = "other nodes" if self._comm.nodes > 1 else "others"
        what = f"waits for {others}" if row.has_arrived else "has not arrived"
        state = process_state(row.process)
        return f"{describe_rank(row, self._host)} {what}" + (state and f": it is {state}")
