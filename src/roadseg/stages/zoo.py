"""The networks by what they cost on this machine: parameters, multiply-adds, latency and memory in each deployed form.

Writes models/zoo/: zoo.csv (a row a network and form) and zoo.png. Networks have random weights, since cost does not
depend on what was learnt; the timings are the search's own, and kept where it keeps them (.state/latency/).
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from roadseg import figures, nets, paths
from roadseg.config import Config
from roadseg.deploy import engines, timings
from roadseg.deploy.export import input_size
from roadseg.errors import UserError
from roadseg.nets import counts
from roadseg.scenes import sources
from roadseg.stages.sizes import Size, deployed

CONVENTION = "multiply-adds of one image by torch's counter (convolutions and matrix products); papers call them FLOPs"


def run(
    config: Config,
    networks: Sequence[str] = (),
    size: tuple[int, int] | None = None,
    budget_ms: float | None = None,
    out: Path = Path("models/zoo"),
) -> pd.DataFrame:
    """Prints and writes the table of `networks` (all of them by default) at `size` = (height, width), pixels;
    None is the deployed model's, as the search times it, or before there is a profile 360x480.

    A network named twice counts once. Raises UserError for one that there is not.
    """
    names = list(dict.fromkeys(networks)) or list(nets.NETS)
    nets.known(names)
    paths.folder(out)
    classes = len(sources.space_of(config).classes)
    image, (height, width) = (size, size) if size else _sizes(config)
    budget = budget_ms or config.target.budget_ms
    forms = engines.forms(config.target.engines, config.target.device, config.target.threads)
    counted = [(name, *counts.of(name, classes, height, width)) for name in names]
    timed = pd.DataFrame(timings.table(names, classes, height, width, forms, budget_ms=budget, image=image))
    frame = timed.merge(pd.DataFrame(counted, columns=["network", "parameters", "multiply_adds"]), on="network")
    frame["fits"] = frame["p95_ms"] <= budget
    frame.to_csv(out / "zoo.csv", index=False)
    figures.zoo(fastest(frame), budget).savefig(out / "zoo.png")
    _show(frame, budget, height, width)
    Console().print(f"{CONVENTION}\n{out / 'zoo.csv'}, {out / 'zoo.png'}", markup=False)
    return frame


def _sizes(config: Config) -> tuple[Size, Size]:
    try:
        return deployed(config)
    except FileNotFoundError:
        return (360, 480), input_size(config.target, [(360, 480)])


def fastest(frame: pd.DataFrame) -> pd.DataFrame:
    """Of each network, its row with the lowest p95."""
    return frame.loc[frame.groupby("network", sort=False)["p95_ms"].idxmin()]


def milliseconds(text: str) -> float:
    """20, 20ms or 0.02s, as milliseconds. UserError for anything else, and for what is not above 0."""
    words = text.strip().lower()
    number, factor = (words[:-2], 1.0) if words.endswith("ms") else (words.removesuffix("s"), 1000.0)
    factor = factor if words.endswith("s") else 1.0
    try:
        value = float(number) * factor
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UserError(f"--budget {text!r} is no time: write 20ms")
    return value


def _show(frame: pd.DataFrame, budget: float, height: int, width: int) -> None:
    table = Table(title=f"Networks at {width}x{height}, batch 1", caption=f"green: p95 within {budget:g} ms")
    for column in ("network", "M parameters", "G multiply-adds", "form", "p50 ms", "p95 ms (95 %)", "host peak MB"):
        table.add_column(column, justify="left" if column in ("network", "form") else "right", overflow="fold")
    last = ""
    for row in frame.to_dict("records"):
        first = row["network"] != last
        last = row["network"]
        sizes = (f"{row['parameters'] / 1e6:.2f}", f"{row['multiply_adds'] / 1e9:.2f}") if first else ("", "")
        spread = f"{row['p95_ms']:.1f} ({row['p95_low_ms']:.1f} to {row['p95_high_ms']:.1f})"
        spread += "" if row["stable"] else " unstable"
        form = f"{row['engine']} {row['precision']}"
        times = f"{row['p50_ms']:.1f}", spread, f"{row['peak_mb']:.0f}"
        table.add_row(last if first else "", *sizes, form, *times, style="green" if row["fits"] else "dim")
    Console().print(table)
