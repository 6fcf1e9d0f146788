"""The order of the items in an epoch: a pure function of (seed, epoch).

A data set in memory is permuted as a whole. One that is read anew in every epoch comes in blocks:
the blocks are permuted, consecutive ones make a window, and the rows of a window are permuted.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from distnn.checks import LARGEST_SEED, number

# Keeps these draws apart from the draws of weights and dropout under the same seed.
ORDER_STREAM = 0x6F72646572  # "order"
WINDOW_STREAM = 0x77696E646F77  # "window"


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
    return _permutation(n, seed, ORDER_STREAM, [0, 0, 0, epoch], out)


def windows(
    sizes: Sequence[int], least: int, seed: int | None, epoch: int
) -> list[npt.NDArray[np.intp]]:
    """The windows of an epoch over a data set that is read in blocks: the blocks of each.

    The blocks come in the order of `epoch_order` of their numbers. Each window takes the next ones
    until it has ``least`` rows; the last window may have fewer. It is thus no longer than
    ``least - 1`` rows and the largest block.

    Args:
        sizes: rows of each block, at least one.
        least: rows, at least one.
        seed: as for `epoch_order`; None: the blocks come as they are.
    """
    n = len(sizes)
    order = np.arange(n, dtype=np.intp) if seed is None else epoch_order(n, seed, epoch)
    found, start, rows = [], 0, 0
    for end, block in enumerate(order.tolist(), 1):
        rows += sizes[block]
        if rows >= least:
            found.append(order[start:end])
            start, rows = end, 0
    return [*found, order[start:]] if start < len(order) else found


def window_order(
    n: int, seed: int, epoch: int, window: int, out: npt.NDArray[np.intp] | None = None
) -> npt.NDArray[np.intp]:
    """A permutation of the n rows of a window: as `epoch_order`, with a draw for each window."""
    return _permutation(n, seed, WINDOW_STREAM, [0, 0, window, epoch], out)


def _permutation(
    n: int, seed: int, stream: int, counter: list[int], out: npt.NDArray[np.intp] | None
) -> npt.NDArray[np.intp]:
    key = np.array([seed, stream], np.uint64)
    if out is None:
        out = np.empty(n, np.intp)
    out[:] = np.arange(n, dtype=np.intp)
    generator = np.random.Philox(key=key, counter=np.array(counter, np.uint64))
    np.random.Generator(generator).shuffle(out)
    return out
