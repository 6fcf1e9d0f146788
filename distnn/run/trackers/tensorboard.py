"""TensorBoard's event files, in the run's directory, by tensorboardX."""

from collections.abc import Mapping
from typing import Any

from tensorboardX import SummaryWriter

from distnn.run.trackers import Run


class TensorBoard:
    """Curves by epoch; ``tensorboard --logdir runs`` shows all runs beside one another.

    A run that goes on writes another file that begins with the number of the first epoch to come:
    of later ones, readers forget what the files before say.
    """

    def start(self, run: Run) -> None:
        """See `Tracker`."""
        self._writer = SummaryWriter(
            str(run.directory / "tensorboard"),
            purge_step=run.epochs + 1,
            filename_suffix=f".{run.epochs}",  # besides the time in seconds
        )
        rows = [f"| {name} | {value} |" for name, value in run.options.items()]
        self._writer.add_text("options", "\n".join(["| option | value |", "|---|---|", *rows]), 0)

    def log(self, epoch: int, measures: Mapping[str, float]) -> None:
        """See `Tracker`."""
        for name, value in measures.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def finish(self, outcome: str, summary: Mapping[str, Any]) -> None:
        """See `Tracker`."""
        self._writer.add_text("outcome", outcome, 0)
        self._writer.close()
