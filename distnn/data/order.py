"""The order of the items in an epoch: a pure function of (seed, epoch)."""

import numpy as np
import numpy.typing as npt

from distnn.checks import LARGEST_SEED, number

# Keeps these draws apart from the draws of weights and dropout under the same seed.
ORDER_STREAM = 0x6F72646572  # "order"


def epoch_order(
    n: int, seed: int, epoch: int, out: npt.NDArray[np.intp] | None = None
) -> npt.NDArray[np.intp]:
    """A permutation of 0 ... n-1 that depends on nothing but its arguments.

    Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") is counter-based:
    the key is made of the seed, and the counter's highest word is the epoch, so that any epoch is
    drawn without the ones before it and no two epochs overlap.

    Args:
        n: number of items.
        seed: 0 <= seed < 2**63.
        epoch: >= 0.
        out: (n,) intp, overwritten and returned; None makes a new one.

    Raises:
        InputError: the seed is out of range.
    """
    number(seed, "seed", whole=True, least=0, most=LARGEST_SEED)
    key = np.array([seed, ORDER_STREAM], np.uint64)
    counter = np.array([0, 0, 0, epoch], np.uint64)
    if out is None:
        out = np.empty(n, np.intp)
    out[:] = np.arange(n, dtype=np.intp)
    np.random.Generator(np.random.Philox(key=key, counter=counter)).shuffle(out)
    return out
