"""How far long work is: a bar in a terminal, a line a minute in a log or on Prefect's page."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from rich import get_console, progress
from rich.console import Console

Item = TypeVar("Item")

EVERY_S = 60.0
"""Seconds between two lines where there is no terminal."""


class Minute:
    """Says when it is over, and begins anew."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def over(self) -> bool:
        """Whether EVERY_S seconds have passed since it was so, or since the start."""
        if time.monotonic() < self._begun + EVERY_S:
            return False
        self._begun = time.monotonic()
        return True


def track(items: Iterable[Item], description: str, total: int | None = None, **options: Any) -> Iterator[Item]:
    """The items, one after another. `total`: how many they are, where they do not know. `options`: of rich's track,
    which draws the bar; it writes to `console`, or to the standard output."""
    console: Console = options.get("console") or get_console()
    if console.is_interactive:
        yield from progress.track(items, description, total, **options)
        return
    total = len(items) if isinstance(items, Sequence) else total
    minute = Minute()
    for number, item in enumerate(items):
        if minute.over():
            console.print(f"{description}: {number} of {total}", markup=False, highlight=False)
        yield item
