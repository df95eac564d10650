"""What the C library keeps of freed memory; no torch."""

import ctypes
import sys
from contextlib import suppress

M_MMAP_THRESHOLD = -3  # glibc's malloc.h


def keep_steady() -> None:
    """Tensors from 16 MiB on are given back as soon as they are freed, for the life of the process.

    glibc raises this bound by itself to 32 MiB, and then keeps in pieces what a decoder frees, by which a long film
    grows (LOG.md).
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 16 << 20)


def give_back() -> None:
    """Returns freed main memory to the system; glibc keeps the smaller tensors otherwise."""
    if sys.platform == "linux":
        with suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
