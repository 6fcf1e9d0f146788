"""Learning-rate schedules: the factor of step t of a run, pure functions of (t, steps_total).

Steps count from 1. A schedule starts with factor 1 at t = 1.
"""

from collections.abc import Callable
from math import cos, pi, sqrt

from distnn.checks import choice

Schedule = Callable[[float, int], float]


def constant(t: float, steps_total: int) -> float:
    """1."""
    return 1.0


def step(t: float, steps_total: int) -> float:
    """1, then 0.1 after half, 0.01 after three quarters of the steps (He et al. 2016, sec. 4.2)."""
    done = 4 * (t - 1)
    if done < 2 * steps_total:
        return 1.0
    return 0.1 if done < 3 * steps_total else 0.01


def linear(t: float, steps_total: int) -> float:
    """A line from 1 that would reach 0 one step after the last."""
    return 1 - _part_done(t, steps_total)


def cosine(t: float, steps_total: int) -> float:
    """Half a cosine from 1 towards 0 (Loshchilov and Hutter 2017, eq. 5, without restarts)."""
    return 0.5 * (1 + cos(pi * _part_done(t, steps_total)))


def _part_done(t: float, steps_total: int) -> float:
    return min(1.0, (t - 1) / max(1, steps_total))


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "step": step,
    "linear": linear,
    "cosine": cosine,
}


def batch_factor(how: str | None, batch: int, base: int) -> float:
    """What a learning rate that suits batches of `base` is multiplied with for those of `batch`.

    Args:
        how: "linear": batch / base, which keeps the sum of the steps of an epoch (Goyal et al.
            2017, sec. 2.1); "sqrt": its square root, which keeps their variance (Krizhevsky 2014,
            sec. 5); None: 1.
    """
    if how is None:
        return 1.0
    return batch / base if how == "linear" else sqrt(batch / base)


def factor(name: str, t: float, steps_total: int, warmup: int = 0) -> float:
    """The learning rate's factor at step t = 1 ... steps_total.

    Args:
        name: a name of ``SCHEDULES``.
        t: the step, from 1; a part of one where batches grow.
        steps_total: steps of the whole run, the warm-up included.
        warmup: so many steps in front rise from 1 / warmup to 1 (Goyal et al. 2017, sec. 2.2);
            the schedule runs over the rest.

    Raises:
        InputError: no such schedule.
    """
    if t <= warmup:
        return t / warmup
    return SCHEDULES[choice(name, "schedule", SCHEDULES)](t - warmup, steps_total - warmup)
