"""Sleeping until a number in shared memory changes: Linux's futex, without a message or a file.

It is for nodes with more ranks than cores. A rank that polls there, however often it offers its
core, may keep it from the rank that it waits for: Linux's scheduler gives every session a share of
its own (autogroup, `man 7 sched`), a core is offered within one session only, and MPICH's launcher
starts each rank in a new one.
"""

import ctypes
import platform
import sys

import numpy as np

from distnn.parallel.watchdog.robust_mutex import Timespec

SYSTEM_CALL = {"x86_64": 202, "aarch64": 98, "riscv64": 98}  # by machine: little-endian ones
WAIT, WAKE = 0, 1
EVERYBODY = 0x7FFFFFFF
LOW = 0xFFFFFFFF  # the half of a number that the kernel looks at


class Futex:
    """The numbers of an array, to sleep on and to wake others from.

    Args:
        numbers: (n,) int64, contiguous, in memory that the ranks of a node share.
        seconds: the longest sleep.
    """

    def __init__(self, numbers: np.ndarray, seconds: float) -> None:
        self._numbers = numbers  # the addresses below are good as long as it is there
        self._start, self._size = numbers.ctypes.data, numbers.itemsize
        self._longest = Timespec.of(seconds)
        self._timeout = ctypes.byref(self._longest)
        self._number = SYSTEM_CALL[platform.machine()]
        address, whole = ctypes.c_void_p, ctypes.c_int
        self._call = ctypes.CDLL(None).syscall
        self._call.restype = ctypes.c_long
        self._call.argtypes = [ctypes.c_long, address, whole, ctypes.c_uint, address]

    def sleep(self, place: int, value: int) -> None:
        """Until another rank wakes those on this place; not longer than allowed, and not at all if
        `numbers[place]` is no longer `value`."""
        address = self._start + self._size * place
        self._call(self._number, address, WAIT, value & LOW, self._timeout)

    def wake(self, place: int) -> None:
        """Let go on who sleeps on `numbers[place]`, after it was changed."""
        self._call(self._number, self._start + self._size * place, WAKE, EVERYBODY, None)


def is_known() -> bool:
    """Whether this system has it."""
    return sys.platform == "linux" and platform.machine() in SYSTEM_CALL
