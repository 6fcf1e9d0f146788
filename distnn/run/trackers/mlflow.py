"""An MLflow run, by mlflow-skinny, where ``MLFLOW_TRACKING_URI`` says.

mlflow-skinny takes a server, or with ``MLFLOW_ALLOW_FILE_STORE=true`` a folder, as ``file:mlruns``;
a file of SQLite, MLflow's default, needs all of MLflow.
"""

import os
import time
from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

from distnn.run.trackers import Run

EXPERIMENT = "distnn"  # where MLFLOW_EXPERIMENT_NAME says nothing else
ENDINGS = {"finished": "FINISHED", "stopped": "KILLED"}  # any other is a failure


class MLflow:
    """One run of MLflow for each run, also after a resume: its id is in ``mlflow.id``."""

    def __init__(self) -> None:
        self._client, self._id, self._logged = MlflowClient(), "", 0

    def start(self, run: Run) -> None:
        """See `Tracker`."""
        kept = run.directory / "mlflow.id"
        if kept.exists():
            self._id = kept.read_text().strip()
            self._client.update_run(self._id, "RUNNING")
            seen = self._client.get_metric_history(self._id, "train_loss")
            self._logged = max((point.step for point in seen), default=0)
            return
        tags = {MLFLOW_RUN_NAME: run.directory.name, "distnn.run": run.identity}
        self._id = self._client.create_run(self._experiment(), tags=tags).info.run_id
        kept.write_text(self._id + "\n")
        options = [Param(name, str(value)) for name, value in run.options.items()]
        self._client.log_batch(self._id, params=options)

    def log(self, epoch: int, measures: Mapping[str, float]) -> None:
        """See `Tracker`."""
        if epoch <= self._logged:
            return  # trained again after a resume, to the same bits: its points are there
        now = int(time.time() * 1000)
        points = [Metric(name, value, now, epoch) for name, value in measures.items()]
        self._client.log_batch(self._id, metrics=points)

    def finish(self, outcome: str, summary: Mapping[str, Any]) -> None:
        """See `Tracker`."""
        self._client.set_tag(self._id, "distnn.outcome", outcome)
        for name in ("weights_sha256", "best_epoch"):
            if name in summary:
                self._client.set_tag(self._id, f"distnn.{name}", str(summary[name]))
        self._client.set_terminated(self._id, ENDINGS.get(outcome, "FAILED"))

    def _experiment(self) -> str:
        """The id of the experiment, made if it is not there."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        return self._client.create_experiment(name) if found is None else found.experiment_id
