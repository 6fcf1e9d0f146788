"""Take a run along: ``python -m distnn.export RUN_DIR --format onnx|torch|safetensors|npz``.

Rank 0 writes the file; for PyTorch, it prints the lines that load it.
"""

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from distnn.command import on_first, run

if TYPE_CHECKING:
    from distnn.parallel.comm.communicator import Communicator

log = logging.getLogger("distnn.export")


def export(comm: "Communicator", argv: Sequence[str]) -> None:
    """Export as the arguments say, on rank 0 of the comm."""
    on_first(comm, _write, argv)


def _write(argv: Sequence[str]) -> None:
    """Rank 0: the run to a file; raises InputError."""
    from distnn.config.command_line import parse_export
    from distnn.errors import InputError
    from distnn.export.files import ENDINGS, write
    from distnn.training.prediction import NO_PREPARATION, Trained

    options = parse_export(argv)
    path = options.output or os.path.join(options.run_dir, f"model.{ENDINGS[options.format]}")
    if os.path.isfile(path) and not options.force:
        remedy = "give another --output, or --force to replace it"
        raise InputError("is there already", path, remedy)
    trained = Trained.open(options.run_dir, options.checkpoint)
    code = write(trained, options.format, path)
    print(f"# written to {path!r}; these lines load it\n{code}" if code else f"written to {path}")
    if trained.has_no_preparation:
        log.warning("%s: %s", path, NO_PREPARATION)


if __name__ == "__main__":
    run("export", export)
