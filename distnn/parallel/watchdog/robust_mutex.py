"""A mark in shared memory that the kernel sets when a rank dies, before anybody else can know.

A launcher hears of a rank's death when the rank's files are closed, and may kill all others in the
time that the system takes to call the first one dead: then nobody can say which one it was. What
comes before the files is the memory, and in it the robust mutexes that the dying thread holds
(`pthread_mutexattr_setrobust(3)`, `get_robust_list(2)`): the kernel marks them, and wakes who
sleeps on them. What they say is read in `board`, without this file and its imports.
"""

import ctypes
import errno
import sys
import threading
import time
from collections.abc import Callable

AWAITED = 0x80000000  # FUTEX_WAITERS of linux/futex.h: somebody wants to be woken
PROCESS_SHARED, ROBUST = 1, 1
SYSTEM_CALL = 449  # futex_waitv(2), on all machines alike
BITS_32 = 2


class Waiter(ctypes.Structure):
    """What one sleeps on, as futex_waitv takes it: as long as it has a value."""

    _fields_ = (
        ("value", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    )


class Timespec(ctypes.Structure):
    """A time as the kernel takes it."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))

    @classmethod
    def of(cls, seconds: float) -> "Timespec":
        """So many seconds."""
        return cls(int(seconds), int(seconds % 1 * 1e9))


def hold(numbers: memoryview) -> Callable[[], None] | None:
    """Have `numbers` marked when this thread ends.

    Args:
        numbers: (LIFELINE,) int64, zero, shared, and mapped until the thread lets go.

    Returns:
        What lets go, to be called by the same thread; None where the system has no such thing.
    """
    if sys.platform != "linux":
        return None
    library, attributes = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    mutex = (ctypes.c_char * numbers.nbytes).from_buffer(numbers)
    failed = (
        library.pthread_mutexattr_init(attributes)
        or library.pthread_mutexattr_setpshared(attributes, PROCESS_SHARED)
        or library.pthread_mutexattr_setrobust(attributes, ROBUST)
        or library.pthread_mutex_init(mutex, attributes)
        or library.pthread_mutex_lock(mutex)
    )
    if failed:
        return None
    word = ctypes.c_uint32.from_buffer(numbers)
    if word.value != threading.get_native_id():  # another library, another order of its parts
        library.pthread_mutex_unlock(mutex)
        numbers[0] = 0
        return None
    word.value |= AWAITED  # else the kernel wakes nobody
    return lambda: library.pthread_mutex_unlock(mutex)


def await_change(seen: list[tuple[memoryview, int]], seconds: float) -> bool:
    """Sleep until one of several is let go or marked; not longer than `seconds`.

    Args:
        seen: numbers, and the first of them as the caller saw it, once.

    Returns:
        False where the system cannot do that, or not with none or so many.
    """
    waiters = (Waiter * len(seen))()
    for waiter, (numbers, value) in zip(waiters, seen, strict=True):
        waiter.address = ctypes.addressof(ctypes.c_char.from_buffer(numbers))
        waiter.value, waiter.flags = value & 0xFFFFFFFF, BITS_32
    until = ctypes.byref(Timespec.of(time.monotonic() + seconds))
    call = ctypes.CDLL(None, use_errno=True).syscall
    done = call(SYSTEM_CALL, waiters, len(seen), 0, until, time.CLOCK_MONOTONIC)
    return done >= 0 or ctypes.get_errno() in (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT)
