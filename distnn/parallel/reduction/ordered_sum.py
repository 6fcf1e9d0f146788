"""The ordered sum of vectors: the tree's additions, prepared once as views and then only run."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from distnn.parallel.reduction import tree

Addition = tuple[np.ndarray, np.ndarray, np.ndarray]


def plan(
    node: tree.Node,
    leaves: Mapping[tree.Node, np.ndarray],
    scratch: Sequence[np.ndarray],
    *,
    keep: bool,
) -> tuple[list[Addition], np.ndarray]:
    """The additions that add up `leaves` to `node`, and where the sum will stand.

    Args:
        node: what is to be summed.
        leaves: vectors of equal length, by the node each of them is the sum of; among them a
            set that covers `node` without a gap.
        scratch: vectors of that length for what lies between, as many as `scratch_needed`.
        keep: leave the sum in the leftmost leaf; else it may stand in scratch, which is in cache.
    """
    inside = sorted(leaf for leaf in leaves if node[0] <= leaf[0] and leaf[1] <= node[1])
    steps, result, _ = tree.additions(node, inside)
    registers = [leaves[leaf] for leaf in inside] + list(scratch)
    if keep and steps:
        result = 0
        steps[-1] = steps[-1]._replace(out=0)
    additions = [
        (registers[step.left], registers[step.right], registers[step.out]) for step in steps
    ]
    return additions, registers[result]


def scratch_needed(node: tree.Node, leaves: Sequence[tree.Node]) -> int:
    """How many scratch vectors `plan` uses."""
    return tree.additions(node, leaves)[2]


def run(additions: Sequence[Addition], add: Callable[..., object] = np.add) -> None:
    """Carry out planned additions.

    Args:
        add: ``add(left, right, out)``, see `wire.Wire.add`.
    """
    for left, right, out in additions:
        add(left, right, out)
