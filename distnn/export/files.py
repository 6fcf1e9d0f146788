"""A trained network written to a file, by format. What a format needs is imported with it."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from distnn.errors import InputError
from distnn.export import facts
from distnn.run.files import reason, write_output
from distnn.training.prediction import Trained

ENDINGS = {"onnx": "onnx", "torch": "pt", "safetensors": "safetensors", "npz": "npz"}
NEEDS = {
    "onnx": "pip install 'distnn[onnx]'",
    "torch": "pip install torch, or give --format safetensors, which PyTorch reads, too",
}


def write(trained: Trained, kind: str, path: str) -> str:
    """Write a file of one of the `ENDINGS`; what is to be printed of it, or "".

    Raises:
        InputError: a package is missing; no space, no permission: what was in the file before is
            untouched.
    """
    if kind in NEEDS and find_spec(kind) is None:
        raise InputError(f"the package {kind} is missing", f"--format {kind}", NEEDS[kind])
    try:
        write_output(Path(path), _WRITERS[kind](trained))
    except OSError as error:
        remedy = "give another --output"
        raise InputError(f"cannot be written: {reason(error)}", path, remedy) from None
    if kind != "torch":
        return ""
    from distnn.export.torch_code import torch_code

    return torch_code(trained, path)


def _onnx(trained: Trained) -> Callable[[Path], object]:
    from distnn.export.onnx_model import onnx_model

    content = onnx_model(trained).SerializeToString(deterministic=True)
    return lambda aside: aside.write_bytes(content)


def _torch(trained: Trained) -> Callable[[Path], object]:
    import torch

    state = {name: torch.from_numpy(array) for name, array in facts.arrays(trained).items()}
    return lambda aside: torch.save(state, aside)


def _safetensors(trained: Trained) -> Callable[[Path], object]:
    from safetensors.numpy import save

    content = save(facts.arrays(trained), facts.texts(trained))
    return lambda aside: aside.write_bytes(content)


def _npz(trained: Trained) -> Callable[[Path], object]:
    arrays = {
        **facts.arrays(trained),
        **{k: np.array(text) for k, text in facts.texts(trained).items()},
    }

    def save(aside: Path) -> None:
        with aside.open("wb") as file:  # a name without .npz would get it
            np.savez(file, **arrays)  # type: ignore[arg-type]

    return save


_WRITERS = {"onnx": _onnx, "torch": _torch, "safetensors": _safetensors, "npz": _npz}
