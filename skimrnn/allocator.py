"""How a command that computes takes its memory from the system."""

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # Of glibc's malloc.h.
_LARGEST = 32 << 20  # What glibc allows for the second.


def take_memory_in_large_blocks() -> None:
    """Have torch ask for huge pages, and glibc keep freed blocks of up to 32 MiB for the next ones.

    A training step takes and frees hundreds of MB: to have the system map them in pages of 4 KiB is up to a fifth of
    its time. To be called before torch makes its first tensor; without Linux or glibc less changes, or nothing.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
