"""What a checkpoint of a training run says, checked once, and that it belongs to a run.

Whoever can write a checkpoint can give it a valid digest, too: types, shapes and ranges of all
that is used later are checked here, before anything of it is.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distnn.checks import LARGEST_COUNT
from distnn.config.options import ARRAYS, TrainConfig, merge_resumed
from distnn.data.preparation import Preparation
from distnn.data.scaling import LOG, Scaling
from distnn.data.targets import CLASSIFICATION, REGRESSION
from distnn.errors import InputError
from distnn.nn.network import Network
from distnn.nn.optimizers import OPTIMIZERS, Optimizer
from distnn.nn.optimizers.average import NAME as AVERAGE
from distnn.nn.optimizers.average import averaged
from distnn.run import metrics
from distnn.run.checkpoint import REMEDY, Checkpoint, CheckpointError

Array = NDArray[Any]

MOST_STEPS = 2**53
ANOTHER = "restore its own, or start another run with --run-dir"


def check_facts(meta: Mapping[str, Any], path: Path) -> None:
    """CheckpointError if a checkpoint's metadata are not as distnn writes them.

    Args:
        path: of the checkpoint, for messages.
    """
    try:
        wrong = next((name for name, holds in _FACTS.items() if not holds(meta)), None)
    except (KeyError, TypeError, AttributeError, InputError) as error:
        raise _forged(path, str(error)) from None
    if wrong is not None:
        raise _forged(path, f"{wrong} is none that distnn writes")


def checked_network(found: Checkpoint) -> Network:
    """The network that a checkpoint describes, without its weights.

    Raises:
        CheckpointError: something in it is not as distnn writes it.
    """
    check_facts(found.meta, found.path)
    try:
        network = Network(**found.meta["network"])
        settings_of(found).check()
        wrong = _wrong_tensor(found.tensors, network, state_names(found))
        names = found.meta.get("feature_names")
        if names is not None and len(names) != network.layers[0]:
            wrong = wrong or "feature_names"
        preparation = preparation_of(found)
        if preparation is not None and preparation.width != network.layers[0]:
            wrong = wrong or "preparation"
        classes = found.meta.get("class_names")
        if classes is not None and (
            len(classes) != found.meta["classes"] or len(classes) != max(2, network.layers[-1])
        ):
            wrong = wrong or "class_names"
        if found.meta["position"]["epoch"] > settings_of(found).epochs:
            wrong = wrong or "position"
    except (KeyError, TypeError, AttributeError, InputError) as error:
        raise _forged(found.path, str(error)) from None
    if wrong is not None:
        raise _forged(found.path, f"{wrong[:60]!a} is none that distnn writes")
    return network


def settings_of(found: Checkpoint) -> TrainConfig:
    """The options of the training that wrote a checkpoint."""
    return TrainConfig.from_dict(found.meta["settings"])


def preparation_of(found: Checkpoint) -> Preparation | None:
    """How the columns of a table are prepared; None where the data were none."""
    kept = found.meta.get("preparation")
    return None if kept is None else Preparation.from_json(kept)


def state_names(found: Checkpoint) -> list[str]:
    """The state vectors that the training had."""
    average = [] if settings_of(found).average is None else [AVERAGE]
    return [*OPTIMIZERS[found.meta["optimizer"]["name"]].state, *average]


def evaluated_weights(found: Checkpoint) -> Array:
    """The weights (n,) that a checkpoint's network is measured and used with: the averaged ones if
    the training kept some."""
    beta, steps = settings_of(found).average, found.meta["position"]["steps"]
    if beta is None or steps == 0:
        return found.weights()
    return averaged(found.state()[AVERAGE], beta, steps)


def check_settings(found: Checkpoint, config: TrainConfig) -> None:
    """InputError if a run's recorded options are not those that its checkpoint was made with.

    What may change on a resume may have changed. So may the place of the data, whose values are
    compared, and, where a program gives them, the epochs.
    """
    open_to_change = {"data", "test_data"} | ({"epochs"} if config.data == ARRAYS else set())
    given = frozenset(config.to_dict()) - open_to_change
    try:
        merge_resumed(settings_of(found), replace(config, given=given))
    except InputError as error:
        what = f"is not of this run, or config.toml was changed: {error.where}: {error.what}"
        raise CheckpointError(what, str(found.path), ANOTHER) from None


def check_identity(found: Checkpoint, identity: str) -> None:
    """CheckpointError if a checkpoint is another run's, as far as both are known."""
    if identity and found.meta.get("run", identity) != identity:
        raise CheckpointError("is of another run", str(found.path), ANOTHER)


def check_model(found: Checkpoint, network: Network, optimizer: Optimizer) -> None:
    """InputError if a checkpoint is of another network or optimizer than the one to be trained."""
    here = {"network": network.config(), "optimizer": _rule(optimizer)}
    for name, values in here.items():
        for key, value in values.items():
            then = found.meta[name].get(key)
            if value != then and (key != "seed" or network.dropout > 0):
                what = f"{key} {value} here, {then} in {found.path.name}"
                remedy = "give the same data and options, or start another run with --run-dir"
                raise InputError(what, name, remedy)


def check_data(
    found: Checkpoint,
    where: str,
    digests: Mapping[str, str],
    tensors: Mapping[str, Array],
    steps: int,
) -> None:
    """InputError if the data are not those that a checkpoint was made with.

    Args:
        steps: of the epoch that is under way.
        digests: of `dataset.digests`; checkpoints of distnn before it had them have none.
        tensors: what a checkpoint holds of the data set.
    """
    then = found.meta.get("data", digests)
    changed = [name for name in {**digests, **then} if then.get(name) != digests.get(name)]
    if not changed:
        kept = {k: array for k, array in tensors.items() if not k.startswith("seen.")}
        same = (np.array_equal(found.tensors.get(k, ()), array) for k, array in kept.items())
        changed = [] if all(same) else ["training rows or targets"]
    if changed:
        raise InputError(
            f"holds other data than when the run was started: {', '.join(changed)}",
            where,
            "give the same data, start another run with --run-dir, or go on anyway with"
            " --allow-changed-data",
        )
    if found.meta["position"]["step"] >= steps:
        raise _forged(found.path, f"it is beyond the {steps} steps of an epoch")


def check_set(found: Checkpoint, where: str, name: str, digests: Mapping[str, str]) -> None:
    """InputError if the test or validation set of a run is not the one that it was measured on.

    Args:
        name: "test" or "validation".
    """
    then = found.meta.get("data", digests)
    if any(then.get(name) != digest for name, digest in digests.items()):
        what = f"holds another {name} set than when the run was trained"
        raise InputError(what, where, "give the file with --data to measure it anyway")


def _rule(optimizer: Optimizer) -> dict[str, Any]:
    return {"name": optimizer.name, **optimizer.config()}


def _forged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"is no training run's: {what[:200]}", str(path), REMEDY)


# --- what distnn writes ---------------------------------------------------------------------------


def _is_count(value: Any, most: int = LARGEST_COUNT) -> bool:
    return type(value) is int and 0 <= value <= most


def _is_position(value: Any) -> bool:
    match value:
        case {"epoch": epoch, "step": step, "steps": steps, "loss": loss, **others}:
            whole = _is_count(epoch) and all(_is_count(n, MOST_STEPS) for n in (step, steps))
            sums = [loss, *others.values()]  # distnn had no noise scale once
            known = not others or others.keys() == {"signal", "noise"}
            sound = _are(sums, float) and all(map(math.isfinite, sums))
            return (
                whole and known and sound and epoch + step <= steps and (step > 0 or not any(sums))
            )
    return False


def _is_watch(value: Any) -> bool:
    match value:
        case None:
            return True
        case {"epoch": epoch, "value": None, **others}:
            return _is_count(epoch, 0) and not others
        case {"epoch": epoch, "value": float(best), **others}:
            return _is_count(epoch) and math.isfinite(best) and not others
    return False


def _is_names(value: Any) -> bool:
    return value is None or (isinstance(value, list) and len(value) > 0 and _are(value, str))


def _are(values: Any, *kinds: type) -> bool:
    return all(isinstance(value, kinds) for value in values)


def _is_fingerprint(value: Any) -> bool:
    return isinstance(value, dict) and _are(value.values(), str, int, type(None))


def _are_fingerprints(values: Any) -> bool:
    return isinstance(values, list) and all(map(_is_fingerprint, values))


def _is_line(value: Any) -> bool:
    record = json.loads(value) if isinstance(value, str) and len(value) < 10_000 else None
    if record is None or not metrics.is_record(record):
        return False
    return _is_count(record.get("epoch")) and value.count("\n") == 1


def _are_lines(values: Any) -> bool:
    try:
        return isinstance(values, list) and all(map(_is_line, values))
    except (ValueError, RecursionError):
        return False


_FACTS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "network": lambda meta: Network(**meta["network"]).size > 0,
    "position": lambda meta: _is_position(meta["position"]),
    "task": lambda meta: meta["task"] in (CLASSIFICATION, REGRESSION),
    "classes": lambda meta: _is_count(meta["classes"]),
    "optimizer": lambda meta: meta["optimizer"]["name"] in OPTIMIZERS,
    "feature_names": lambda meta: _is_names(meta.get("feature_names")),
    "target_names": lambda meta: _is_names(meta.get("target_names")),
    "class_names": lambda meta: _is_names(meta.get("class_names")),
    "target_transform": lambda meta: meta.get("target_transform") in (None, LOG),
    "loss": lambda meta: isinstance(meta.get("loss", 0.0), float),
    "score": lambda meta: isinstance(meta.get("score", 0.0), float),
    "watch": lambda meta: _is_watch(meta.get("watch")),
    "ranks": lambda meta: _is_count(meta.get("ranks", 1)),
    "data": lambda meta: _are(meta.get("data", {}).values(), str),
    "run": lambda meta: isinstance(meta.get("run", ""), str),
    "records": lambda meta: _are_lines(meta.get("records", [])),
    "fingerprint": lambda meta: _is_fingerprint(meta.get("fingerprint", {})),
    "fingerprints": lambda meta: _are_fingerprints(meta.get("fingerprints", [])),
}


def _wrong_tensor(
    tensors: Mapping[str, Array], network: Network, state: Sequence[str]
) -> str | None:
    """The name of a tensor that does not fit the network, or is missing; None if all do."""
    flat, dtype = (network.size,), network.dtype
    known: dict[str, tuple[tuple[int, ...], Any]] = {
        f"W{l}": (shape, dtype) for l, shape in enumerate(network.shapes, 1)
    }
    known |= {f"optimizer.{name}": (flat, dtype) for name in state}
    known |= _scaling("scaling", network.layers[0])
    required = set(known)
    known |= _scaling("target_scaling", network.layers[-1]) | {"data": ((32,), np.uint8)}
    known |= _scaling("seen", network.layers[0])
    for name in ("target_scaling", "seen"):
        if f"{name}.shift" in tensors:
            required |= {f"{name}.scale"}
    for name in [*sorted(required - set(tensors)), *tensors]:
        shape, kind = known.get(name, (None, None))
        array = tensors.get(name)
        if array is None or array.shape != shape or array.dtype != kind:
            return name
    for name in ("scaling", "target_scaling", "seen"):
        if f"{name}.shift" in tensors:
            Scaling.from_arrays({key: tensors[f"{name}.{key}"] for key in ("shift", "scale")})
    return None


def _scaling(name: str, columns: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    return {f"{name}.{key}": ((columns,), np.float64) for key in ("shift", "scale")}
