"""The loop of a training: epochs and steps, evaluation, checkpoints, stop requests."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from distnn.errors import DistnnError, DivergenceError, StopRequested
from distnn.training.best import BestWeights
from distnn.training.evaluation import Evaluation
from distnn.training.session import Session

if TYPE_CHECKING:  # what writes files is loaded where it does
    from distnn.training.run_files import RunFiles
    from distnn.training.trace import Trace

Record = dict[str, Any]


class Loop:
    """Trains a session until so many epochs are done in all. All methods are collective.

    Args:
        evaluation: what is measured after each epoch, if anything.
        best: what is watched on the validation set, and may end the training early; None without.
        until: epochs.
        files: on rank 0, where metrics and checkpoints are written, if anywhere.
        stop_requested: whether this rank asks for a stop, as 1 or 0.
        trace: what steps and phases go through, where some are traced.
    """

    def __init__(
        self,
        session: Session,
        evaluation: Evaluation | None,
        until: int,
        files: "RunFiles | None",
        stop_requested: Callable[[], int],
        best: BestWeights | None = None,
        trace: "Trace | None" = None,
    ) -> None:
        self._session, self._evaluation = session, evaluation
        self._until, self._files, self._stop_requested = until, files, stop_requested
        self._best, self._stopping = best, None if best is None else best.stopping
        self._status = session.comm.status
        self._enter = self._status.enter if trace is None else trace.enter
        self._step = session.step if trace is None else trace.step

    def run(self) -> list[Record]:
        """Train; one record per epoch that was completed here.

        Raises:
            DivergenceError, StopRequested: on every rank.
            DistnnError: on every rank, if the end of the training could not be saved.
        """
        records: list[Record] = []
        try:
            with np.errstate(all="ignore"):  # what is not finite is looked for in the losses
                while not self._at_end():
                    start = time.perf_counter()
                    before = self._items_done()
                    record, stop = self._epoch()
                    records.append(record)
                    if self._files is not None:
                        seconds = time.perf_counter() - start
                        self._files.epoch_done(record, seconds, self._items_done() - before)
                    is_best = self._see_best(record)
                    stop = stop and not self._at_end()
                    if stop or is_best or self._checkpoint_due():
                        self._save_checkpoint()
                    if stop:
                        raise StopRequested(self._stop_message())
        except StopRequested as error:
            stopped = StopRequested(f"{error}{self._unsaved_message()}")
            self._record_end("stopped", stopped)
            raise stopped from None
        except DivergenceError as error:
            self._unsaved_message()
            self._record_end("diverged", error)
            raise
        if unsaved := self._unsaved_message():
            remedy = "make room and go on with --resume"
            raise DistnnError(f"training is done{unsaved}; {remedy}")
        return records

    def _epoch(self) -> tuple[Record, int]:
        """What is left of the current epoch; its record, and whether to stop after it."""
        session, position, stop = self._session, self._session.position, 0
        self._enter("step")
        steps = session.begin_epoch(self._until)
        step_done = self._files.progress.step if self._files is not None else _nothing
        while position.step < steps:
            stop = self._step(self._stop_requested())
            step_done()
            if position.step == steps:
                break
            if stop or self._checkpoint_due():
                session.collect_losses()
                self._save_checkpoint()
                self._enter("step")
            if stop:
                raise StopRequested(self._stop_message())
        rate = session.learning_rate(position.steps)
        measures = session.end_epoch()
        record = {
            "epoch": position.epoch,
            "step": position.steps,
            "learning_rate": rate,
            **measures,
        }
        self._enter("evaluation")
        if self._evaluation is not None:
            with session.averaged():
                record |= self._evaluation.measure()
        return record, stop

    def _items_done(self) -> int:
        """How many items were trained on so far."""
        return self._session.batches.items_until(self._session.position)

    def _checkpoint_due(self) -> bool:
        """Whether a checkpoint is due; one always is at the end."""
        position = self._session.position
        unit, number = self._session.config.checkpoint_interval
        at_end = position.step == 0 and self._at_end()
        if unit == "steps":
            return position.steps % number == 0 or at_end
        return position.step == 0 and (position.epoch % number == 0 or at_end)

    def _see_best(self, record: Record) -> bool:
        """Whether the weights after this epoch are the best so far, which are kept then."""
        session = self._session
        if self._best is None or not self._best.stopping.see(session.position.epoch, record):
            return False
        if session.comm.is_first:
            self._best.keep(session.measured_weights)
        return True

    def _at_end(self) -> bool:
        """Whether all epochs are done, or, between two epochs, patience is exhausted."""
        position = self._session.position
        if position.epoch >= self._until:
            return True
        if self._stopping is None or position.step > 0:
            return False
        return self._stopping.is_over(position.epoch)

    def _save_checkpoint(self) -> None:
        session = self._session
        self._enter("checkpoint")
        session.collect_state()
        session.check_finite()
        if self._files is not None:
            with self._status.working():
                self._files.save_checkpoint(
                    session.network.weights,
                    session.exchange.state,
                    session.position,
                    self._stopping,
                )

    def _unsaved_message(self) -> str:
        """Wait until the last checkpoint is on the disk; why it is not, or nothing."""
        comm = self._session.comm
        self._enter("checkpoint")
        message = comm.on_first(self._files.unsaved_message if self._files is not None else str)
        return str(comm.broadcast(message))

    def _record_end(self, outcome: str, error: DistnnError) -> None:
        if self._files is not None:
            self._files.record_end(outcome, error)

    def _stop_message(self) -> str:
        position = self._session.position
        return f"stopped on request after epoch {position.epoch}, step {position.step}"


def _nothing() -> None:
    pass
