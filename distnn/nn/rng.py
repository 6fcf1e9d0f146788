"""Counter-based random numbers (Philox, Salmon et al. 2011).

A draw depends on its purpose and place, not on earlier draws or on the rank.
"""

import numpy as np

WEIGHTS, DROPOUT = 1, 2  # one stream for each purpose

_WORD = (1 << 64) - 1


class Stream:
    """A generator that can be set to any (purpose, place...) of a seed."""

    def __init__(self, seed: int, purpose: int) -> None:
        self._bits = np.random.Philox(key=(purpose << 64) + (seed & _WORD))
        self._start = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def at(self, a: int, b: int = 0, c: int = 0) -> "np.random.Generator":
        """The generator, set to the beginning of place (a, b, c)."""
        counter = self._start["state"]["counter"]
        counter[:] = 0, c, b, a  # the lowest word counts the draws of this place
        self._bits.state = self._start
        return self._generator
