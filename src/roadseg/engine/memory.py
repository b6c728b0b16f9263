"""The process's memory while it trains: how it ends, and on a CPU how it is kept.

Each step frees what the next one takes again, tens of megabytes at a time. glibc hands such blocks back to the system,
which clears their pages before it gives them out again: up to a third of a Fast-SCNN step at 480x360. What is kept lies
in pages of 4 KiB, each of which a processor looks up and reads ahead for itself, unless the system is asked for large
ones.
"""

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

# glibc's malloc.h; the values are mallopt(3)'s
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_AT_ONCE = 1 << 26
"""Bytes asked of the system at a time: 64 MiB."""
_HUGE, _COLLAPSE = 14, 25
"""madvise(2)'s, of Linux: pages to come, and those that are there already (since 6.1)."""
_SAID = "DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED"
"""By RuntimeErrors of torch's that mean it: its own, and those of libraries which ask a GPU themselves."""
_ALL_SAID = "could not create a primitive"
"""By oneDNN, of a convolution on a CPU; with more words, of one that it cannot compute."""


@contextmanager
def recognised() -> Iterator[None]:
    """Whatever the device, memory that runs out in here is torch.OutOfMemoryError: torch says it by a RuntimeError on a
    CPU and at times on a GPU, and Python by MemoryError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        said = str(error).strip()
        if isinstance(error, MemoryError) or said == _ALL_SAID or any(words in said for words in _SAID):
            raise torch.OutOfMemoryError(str(error)) from error
        raise


@functools.cache
def keep_freed() -> None:
    """From now on this process keeps memory that it frees, and takes it again instead of new pages.

    Where the C library is not glibc, this changes nothing. What a process holds stays at its peak.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        never, nothing = -1, 0
        for setting, value in ((_MMAP_MAX, nothing), (_TRIM_THRESHOLD, never), (_TOP_PAD, _AT_ONCE)):
            mallopt(setting, value)


def large_pages() -> None:
    """Moves what this process has allocated, and keeps, to pages of 2 MiB: its heap, as far as the system has any.

    For the end of a first step, when all that steps take is there: a gigabyte takes up to three seconds, and what has
    been moved before next to none. Where the system is not Linux, or refuses, this changes nothing.
    """
    maps = Path("/proc/self/maps")
    # bytes: it names mapped files, in whatever encoding
    heaps = [line for line in maps.read_bytes().splitlines() if line.endswith(b"[heap]")] if maps.exists() else []
    for heap in heaps:
        first, end = (int(address, 16) for address in heap.split()[0].split(b"-"))
        for advice in (_HUGE, _COLLAPSE):
            ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), advice)
