"""From files to a training set that is read in windows.

What is learnt of it in a first pass, and how its rows are written into memory.
"""

import ctypes
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distnn.config.options import TrainConfig
from distnn.data.moments import Moments
from distnn.data.options import TableOptions
from distnn.data.rows import convert, place_of
from distnn.data.scaling import LOG, Scaling, Units, log_of_targets
from distnn.data.targets import REGRESSION, Targets, check_like
from distnn.errors import InputError
from distnn.parallel.comm.communicator import Communicator
from distnn.training.streamed import StreamedDataset
from distnn.training.weighting import checked_weights

if TYPE_CHECKING:
    from distnn.data.blocks import Blocks, Piece

Array = NDArray[Any]


@dataclass(frozen=True)
class Encoder:
    """How the rows of a file become those of a training set in memory.

    Attributes:
        blocks: the file.
        task, n_out, classes, names: as of `Targets`.
        scaling: of the features; None: not yet known.
        units: of real targets.
    """

    blocks: "Blocks"
    task: str
    n_out: int
    classes: int
    names: tuple[str, ...] | None
    scaling: Scaling | None
    units: Units

    @classmethod
    def of(cls, blocks: "Blocks", targets: Targets, transform: str | None) -> "Encoder":
        """What is known before the moments are."""
        of = targets.task, targets.n_out, targets.classes, targets.names
        return cls(blocks, *of, None, Units(None, transform))

    def write(self, piece: "Piece", X: Array, T: Array, weights: Array | None) -> None:
        """A piece into X (b, 1 + n_0), T (b, k) and weights (b,).

        Raises:
            InputError: a value is not finite or does not fit.
        """
        start, where = piece.start, self.blocks.where
        X[:, 0] = 1
        convert(piece.x, X[:, 1:], lambda i, j: f"{where}, {self.blocks.place(start + i, j)}")
        if self.scaling is not None:
            self.scaling.apply(X)
        self._write_targets(piece, T)
        if weights is not None:
            given = 1.0 if piece.weights is None else piece.weights
            weights[:] = checked_weights(np.broadcast_to(given, len(X)), len(X), self._rows(start))

    def to_json(self) -> dict[str, Any]:
        """For the other ranks, but for the blocks."""
        return {
            "task": self.task,
            "n_out": self.n_out,
            "classes": self.classes,
            "names": self.names,
            "scaling": self.scaling and {k: a.tolist() for k, a in self.scaling.arrays().items()},
            "units": self.units.to_json(),
        }

    @classmethod
    def from_json(cls, blocks: "Blocks", value: Mapping[str, Any]) -> "Encoder":
        """The inverse of `to_json`."""
        names = None if value["names"] is None else tuple(value["names"])
        scaling = None if value["scaling"] is None else Scaling.from_arrays(value["scaling"])
        of = value["task"], value["n_out"], value["classes"], names
        return cls(blocks, *of, scaling, Units.from_json(value["units"]))

    def _write_targets(self, piece: "Piece", T: Array) -> None:
        where = self._rows(piece.start)
        y = check_like(piece.y, self.task, self.n_out, self.classes, where, self.names)
        if self.units.transform == LOG:
            y = log_of_targets(y, where)
        convert(y.reshape(T.shape), T, lambda i, j: f"{where}, {place_of(i, j)}")
        if self.units.scaling is not None:
            self.units.scaling.apply_targets(T)

    def _rows(self, start: int) -> str:
        return f"{self.blocks.y_where}, in the rows from {start} on"


@dataclass(frozen=True)
class Measured:
    """What one pass over a training set gives.

    Attributes:
        rows, targets: their moments.
        total_weight: of all rows.
        digests: of all values, by what they are of.
    """

    rows: Moments
    targets: Moments
    total_weight: float
    digests: dict[str, str]

    @property
    def digest(self) -> Array:
        """32 bytes that differ for other data."""
        text = repr(sorted(self.digests.items()))
        return np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)


class StreamDescription(NamedTuple):
    """What rank 0 learnt, and every rank must know.

    Attributes:
        encoder: complete.
        preparation: of a table's columns, as JSON; None where there is no table.
    """

    encoder: Encoder
    measured: Measured
    preparation: dict[str, Any] | None


def check_streamed(config: TrainConfig) -> None:
    """InputError for options that need all rows of the training set at once."""
    remedy = "use --window 0 if the training set fits into memory"
    if config.validation_share is not None:
        what = "no share of a training set that is read in windows can be held out"
        raise InputError(what, "validation", f"give a file, or {remedy}")
    if config.class_weight is not None:
        what = "classes of a training set that is read in windows are not counted"
        raise InputError(what, "class-weight", f"give weights with --weight, or {remedy}")


def give_back() -> None:
    """What passes over a file have freed goes back to the machine, where the C library can do so.

    It would else be kept for the whole training: some 50 MB for a table of 20 columns.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def measure(encoder: Encoder, sample: StreamedDataset) -> Measured:
    """Read a training set once, before anything is scaled; its values are checked meanwhile.

    Args:
        sample: has the types and widths of what is written; one of its windows is overwritten.

    Raises:
        InputError: a value cannot be used; all weights are 0.
    """
    rows, targets = Moments(sample.X.shape[1] - 1), Moments(sample.T.shape[1])
    hashes = {name: hashlib.sha1(usedforsecurity=False) for name in ("rows", "targets", "weights")}
    total = 0.0
    for block in range(len(encoder.blocks.sizes)):
        for piece in encoder.blocks.read(block):
            b = len(piece.x)
            X, T = sample.X[:b], sample.T[:b]
            w = None if sample.weights is None else sample.weights[:b]
            encoder.write(piece, X, T, w)
            rows.add(X[:, 1:])
            if encoder.task == REGRESSION:
                targets.add(T)
            total += b if w is None else float(w.sum())
            for name, array in (("rows", X), ("targets", T), ("weights", w)):
                if array is not None:
                    hashes[name].update(np.ascontiguousarray(array).data.cast("B"))
    if total == 0:
        raise InputError("every weight is 0", "weight", "give one row at least a weight above 0")
    if sample.weights is None:
        del hashes["weights"]
    give_back()
    digests = {f"training {name}": one.hexdigest() for name, one in hashes.items()}
    return Measured(rows, targets, total, digests)


def begin_streaming(
    comm: Communicator,
    dataset: StreamedDataset,
    path: str,
    target: str | None,
    options: TableOptions,
    found: StreamDescription | None,
) -> None:
    """Every rank opens the files, and knows how their rows are written. Collective.

    Args:
        path, target, options: as for `data.sources.open_data`.
        found: on rank 0.

    Raises:
        InputError: on every rank, if one cannot open the files or finds others there.
    """
    from distnn.data.preparation import Preparation
    from distnn.data.streams import open_blocks

    shared = None
    if found is not None:
        dataset.digests = found.measured.digests
        shared = {
            "encoder": found.encoder.to_json(),
            "preparation": found.preparation,
            "weight": found.measured.total_weight,
            "sizes": found.encoder.blocks.sizes,
        }
    shared = comm.broadcast(shared)
    blocks, problem = None, None
    try:
        kept = shared["preparation"]
        prepared = None if kept is None else Preparation.from_json(kept)
        blocks = open_blocks(Path(path), target, options, prepared)
        if blocks.sizes != shared["sizes"]:
            what = f"is another file on {comm.host} than on rank 0's machine"
            raise InputError(what, blocks.where, "give every machine the same")
    except InputError as error:
        where = f"{error.where} on {comm.host}"
        problem = error if comm.is_first else InputError(error.what, where, error.remedy)
    comm.agree(problem)
    assert blocks is not None
    encoder = Encoder.from_json(blocks, shared["encoder"])
    dataset.begin(blocks, encoder.write, shared["weight"])
