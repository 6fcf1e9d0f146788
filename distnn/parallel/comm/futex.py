"""Sleeping until memory changes, by Linux's futexes: without a message, a file or polling.

Imports neither numpy nor MPI: the death monitor has none.
"""

import ctypes
import errno
import os
import sys
import time

from distnn.parallel.comm.status import MutexRow

FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98}  # system calls, of little-endian machines
FUTEX_WAITV = 449  # on all machines alike
WAIT, WAKE = 0, 1
ALL_WAITERS = 0x7FFFFFFF
LOW_BITS = 0xFFFFFFFF  # the half of a number that the kernel compares
SIZE_U32 = 2  # FUTEX2_SIZE_U32


class Timespec(ctypes.Structure):
    """A time as the kernel takes it."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))

    @classmethod
    def of(cls, seconds: float) -> "Timespec":
        """So many seconds."""
        return cls(int(seconds), int(seconds % 1 * 1e9))


class _Waiter(ctypes.Structure):
    """One address to sleep on, as futex_waitv takes it: as long as it holds `value`."""

    _fields_ = (
        ("value", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("_reserved", ctypes.c_uint32),
    )


class Futex:
    """Sleeps on the numbers of an array, and wakes others from them.

    Args:
        numbers: int64, contiguous and writable, in memory that the ranks of a node share.
        seconds: the longest sleep.
    """

    def __init__(self, numbers: memoryview, seconds: float) -> None:
        self._first = ctypes.c_int64.from_buffer(numbers)  # keeps the memory there
        self._start = ctypes.addressof(self._first)
        self._longest = Timespec.of(seconds)
        self._timeout = ctypes.byref(self._longest)
        self._number = FUTEX[os.uname().machine]
        address, number = ctypes.c_void_p, ctypes.c_int
        self._call = ctypes.CDLL(None).syscall
        self._call.restype = ctypes.c_long
        self._call.argtypes = [ctypes.c_long, address, number, ctypes.c_uint, address]

    def sleep(self, index: int, value: int) -> None:
        """Sleep until `wake(index)` or the longest sleep is over; not at all if `numbers[index]`
        is no longer `value`."""
        self._call(self._number, self._start + 8 * index, WAIT, value & LOW_BITS, self._timeout)

    def wake(self, index: int) -> None:
        """Wake who sleeps on `numbers[index]`, after it was changed."""
        self._call(self._number, self._start + 8 * index, WAKE, ALL_WAITERS, None)


def has_futex() -> bool:
    """Whether `Futex` works on this system."""
    return sys.platform == "linux" and os.uname().machine in FUTEX


def wait_for_release(seen: list[tuple[MutexRow, int]], seconds: float) -> bool:
    """Sleep until one of several mutexes is released or orphaned; not longer than `seconds`.

    Args:
        seen: mutexes, each with the state that the caller has seen it in.

    Returns:
        False where the system cannot do that, or not with none or so many.
    """
    waiters = (_Waiter * len(seen))(
        *(_Waiter(state, ctypes.addressof(mutex), SIZE_U32) for mutex, state in seen)
    )
    until = ctypes.byref(Timespec.of(time.monotonic() + seconds))
    call = ctypes.CDLL(None, use_errno=True).syscall
    done = call(FUTEX_WAITV, waiters, len(seen), 0, until, time.CLOCK_MONOTONIC)
    return done >= 0 or ctypes.get_errno() in (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT)
