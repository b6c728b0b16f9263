"""The same work on every scene, on all cores of this process, with a progress bar."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from roadseg.bar import track

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], description: str) -> list[Result]:
    """`work` of each item, in the items' order; the first item's error that is met is raised and the rest is dropped.

    Threads, not processes: nearly all the time goes to decoding, encoding and hashing, which let go of Python's lock.
    """
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(track(pool.map(work, items), description, len(items), refresh_per_second=2, update_period=0.5))
