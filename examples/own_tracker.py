"""A tracker of your own: the figures of all runs in one SQLite file. Any other service fits alike.

    PYTHONPATH=examples mpirun -n 4 python -m distnn.train --tracker own_tracker:SQLite
    sqlite3 runs.db "select run, max(value) from figures where name = 'test_accuracy' group by run"

For a server, `start` opens the run under ``run.identity``, which is the same after a resume, and
`log` sends the figures. The calls come from a thread of their own: they may be slow, and may fail.
"""

import sqlite3


class SQLite:
    """See `distnn.run.trackers.Tracker`."""

    def start(self, run):
        """A run begins or goes on; rows of epochs that come again are replaced."""
        self.run = run.directory.name
        self.file = sqlite3.connect("runs.db")
        self.file.execute("create table if not exists figures"
                          " (run, epoch, name, value, primary key (run, epoch, name))")  # fmt: skip

    def log(self, epoch, measures):
        """An epoch is done."""
        rows = [(self.run, epoch, name, value) for name, value in measures.items()]
        with self.file:
            self.file.executemany("insert or replace into figures values (?, ?, ?, ?)", rows)

    def finish(self, outcome, summary):
        """The run ends."""
        self.file.close()
