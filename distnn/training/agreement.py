"""Every rank was told the same: what is different would only be seen as a stall, or not at all."""

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from distnn.errors import InputError

if TYPE_CHECKING:
    from distnn.parallel.comm.communicator import Communicator
    from distnn.training.trainer import Trainer


def check_fit(trainer: "Trainer", X: Any, test: Any, epochs: int, partitioned: bool) -> None:
    """Before a fit. Collective: two small messages.

    Raises:
        InputError: on every rank, if trainers or arguments differ, or, without `partitioned`, the
            number of rows.
    """
    config = trainer.config
    told = {
        "network": trainer.network.config(),
        "optimizer": [trainer.optimizer.name, trainer.optimizer.config()],
        "batch_size": config.batch_size,
        "slices": config.slices,
        "seed": config.seed,
        "schedule": [config.schedule, config.warmup],
        "reduce": config.reduce,
        "update": config.update,
        "clip_norm": config.clip_norm,
        "checkpoint_every": config.checkpoint_every,
        "on_failure": trainer.on_failure,
        "epochs": epochs,
        "test": test is not None,
        "partitioned": partitioned,
    }
    check_alike(trainer.comm, told)
    if not partitioned:
        check_rows(trainer.comm, _rows(X))


def check_alike(comm: "Communicator", values: dict[str, Any]) -> None:
    """Collective; raises an InputError on every rank that names what differs."""
    texts = {
        name: json.dumps(value, sort_keys=True, default=_plain) for name, value in values.items()
    }
    digest = hashlib.sha256(json.dumps(texts).encode()).digest()
    if comm.all_equal(int.from_bytes(digest[:7])):
        return
    for name, text in texts.items():  # one by one: this is no path that has to be quick
        if not comm.all_equal(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])):
            what = f"differs between ranks: {values[name]!r} on rank {comm.rank}"
            raise InputError(what, where=name, remedy="give every rank the same")


def check_rows(comm: "Communicator", rows: int | None) -> None:
    """Collective; raises an InputError on every rank if some gave more rows than others.

    Args:
        rows: None where a rank gave none at all: rank 0's are used.
    """
    most = comm.largest(-1 if rows is None else rows)
    least = -comm.largest(-most if rows is None else -rows)
    if least != most:
        raise InputError(
            f"has {least} rows on one rank and {most} on another",
            where="X",
            remedy="give all rows on every rank, or with partitioned=True each rank its own",
        )


def _plain(value: Any) -> Any:
    """A number of numpy's as Python's."""
    return value.item() if isinstance(value, np.generic) else str(value)


def _rows(X: Any) -> int | None:
    try:
        return len(X)
    except TypeError:  # nothing, or what will be told to be no array
        return None
