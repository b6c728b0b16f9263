"""One live line for a training: how far it is, how well, how fast, how long still, in how much memory."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from rich import get_console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from roadseg.bar import Minute
from roadseg.engine import Report

Show = Callable[[Report, float | None], None]
"""(the latest report, the latest validation mIoU 0..1 if there is one)."""


@contextmanager
def live(name: str, epochs: float, scenes: int, parts: int = 1) -> Iterator[Show]:
    """Gives a function that brings the line up to date. `scenes`: what one epoch is worth, for images a second.
    `parts`: in how many a batch is asked to go. That it goes in more, and each setback, is said once, on a line of its
    own.

    Where there is no terminal, the line is printed once a minute, and at the end.
    """
    log = not get_console().is_interactive
    columns = (BarColumn(bar_width=8), TextColumn("{task.fields[said]}"), TimeRemainingColumn())
    # rich forgets how fast it was after 30 s, and steps may be further apart
    with Progress(*columns, speed_estimate_period=1e9, disable=log) as progress:
        progress.console.print(name, markup=False)  # on a line of its own: all the rest fits into 80 columns
        bar = progress.add_task("", total=1.0, said="")
        first: list[Report] = []
        divided, setbacks, news, minute = parts, 0, False, Minute()

        def show(report: Report, miou: float | None) -> None:
            nonlocal divided, setbacks, news
            if not first:
                first.append(report)
            if report.parts > divided:
                divided = report.parts
                note = f"out of memory: by step {report.step} a batch goes in {divided} parts (train.parts)"
                progress.console.print(note, markup=False)
            if report.setbacks > setbacks:
                setbacks = report.setbacks
                note = f"no number: by step {report.step} training went back {setbacks} times in all (train.setbacks)"
                progress.console.print(note, markup=False)
            past = report.seconds - first[0].seconds
            rate = (report.epoch - first[0].epoch) * scenes / past if past > 0 else 0.0
            said = [f"epoch {report.epoch:.1f}/{epochs:g}", f"loss {report.loss:.3f}"]
            said += [f"mIoU {miou:.1%}"] if miou is not None else []
            said += [f"{rate:.1f} images/s"] if rate else []
            said += [f"{memory_gb():.1f} GB"]
            progress.update(bar, completed=report.step / report.total_steps, said="  ".join(said))
            news = not (log and minute.over())
            if not news:
                progress.console.print(progress.get_renderable())

        try:
            yield show
        finally:
            if log and news:
                progress.console.print(progress.get_renderable())


def memory_gb() -> float:
    """Peak memory so far, GB: the GPU's where there is one, else the process's (Linux counts it in KB)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
