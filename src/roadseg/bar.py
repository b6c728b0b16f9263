"""How far long work is: a bar in a terminal, a line a minute in a log or on Prefect's page."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from rich import get_console, progress
from rich.console import Console

Item = TypeVar("Item")

EVERY_S = 60.0
"""Seconds between two lines where there is no terminal."""


def track(items: Iterable[Item], description: str, total: int | None = None, **options: Any) -> Iterator[Item]:
    """The items, one after another. `total`: how many they are, where they do not know. `options`: of rich's track,
    which draws the bar; it writes to `console`, or to the standard output."""
    console: Console = options.get("console") or get_console()
    if console.is_interactive:
        yield from progress.track(items, description, total, **options)
        return
    total = len(items) if isinstance(items, Sequence) else total
    said = time.monotonic()
    for number, item in enumerate(items):
        if time.monotonic() >= said + EVERY_S:
            said = time.monotonic()
            console.print(f"{description}: {number} of {total}", markup=False, highlight=False)
        yield item
