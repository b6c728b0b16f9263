"""Every picture of the project, drawn one way: pure functions from arrays and tables to a Figure or an image.

Images are uint8 HWC RGB 0-255; id masks are uint8 (or any integer) HW train ids, 255 = ignore. Figures are bare
matplotlib `Figure`s, never registered with pyplot: they hold no global state and need no closing. Save them with
`figure.savefig(path)`.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter, ScalarFormatter

from roadseg.labels import IGNORE, LabelSpace

INK, PALE, ACCENT = "#22303c", "#d9dee3", "#c0392b"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
"""Okabe and Ito's colours, which the colour-blind tell apart; given to names in alphabetical order."""
SCORES = {"val_miou": "validation mIoU", "test_miou": "test mIoU", "miou": "mIoU"}
"""What a column of scores is called on an axis."""
GAP = 4
"""Pixels of white between the images of a triptych or a sheet."""


def colour(ids: np.ndarray, space: LabelSpace) -> np.ndarray:
    """The mask in the label space's colours: HW ids -> uint8 HWC. Ignored pixels are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(space.colours)] = space.colours
    return table[ids]


def overlay(image: np.ndarray, ids: np.ndarray, space: LabelSpace, alpha: float = 0.55) -> np.ndarray:
    """The mask laid over its image, `alpha` of the colour and the rest of the image. Ignored pixels show the image."""
    _same_size(image, ids)
    mixed = (1 - alpha) * image + alpha * colour(ids, space)
    return np.where((ids == IGNORE)[..., None], image, mixed.round()).astype(np.uint8)


def triptych(image: np.ndarray, label: np.ndarray, prediction: np.ndarray, space: LabelSpace) -> np.ndarray:
    """Image, label and prediction side by side: uint8 HWC, three widths and two gaps wide.

    The prediction is black where the label is ignored: nothing is judged there.
    """
    _same_size(image, label)
    _same_size(image, prediction)
    judged = np.where(label == IGNORE, IGNORE, prediction)
    return sheet([image, colour(label, space), colour(judged, space)], columns=3)


def sheet(images: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """A contact sheet: images of one size, row by row, on white."""
    height, width = images[0].shape[:2]
    rows = -(-len(images) // columns)
    page = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, np.uint8)
    for number, image in enumerate(images):
        _same_size(image, images[0])
        row, column = divmod(number, columns)
        top, left = row * (height + GAP), column * (width + GAP)
        page[top : top + height, left : left + width] = image
    return page


def legend(space: LabelSpace) -> Figure:
    """The classes of a label space beside their colours, with ignore as the last."""
    entries = [*zip(space.classes, space.colours, strict=True), ("ignored", (0, 0, 0))]
    columns = 4
    rows = -(-len(entries) // columns)
    figure = Figure(figsize=(8, 0.3 * rows + 0.2), dpi=120)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, columns), ylim=(rows, 0))
    axes.axis("off")
    for number, (name, rgb) in enumerate(entries):
        column, row = divmod(number, rows)
        shade = tuple(value / 255 for value in rgb)
        axes.add_patch(Rectangle((column + 0.05, row + 0.15), 0.14, 0.7, facecolor=shade, edgecolor=PALE))
        axes.text(column + 0.24, row + 0.5, name, va="center", fontsize=9, color=INK)
    return figure


def curves(frame: pd.DataFrame) -> Figure:
    """Loss, validation mIoU and learning rate over a training.

    `frame` has the columns epoch, loss, val_miou (0-1) and learning_rate; with `finalist`, one line for each.
    """
    figure = _figure(10, 3.2)
    panels = [("loss", "training loss"), ("val_miou", "validation mIoU"), ("learning_rate", "learning rate")]
    groups = frame.groupby("finalist") if "finalist" in frame else [("", frame)]
    for position, (column, title) in enumerate(panels, start=1):
        axes = _dressed(figure.add_subplot(1, 3, position), title, "epoch")
        for (name, rows), shade in zip(groups, _endless(SERIES), strict=False):
            axes.plot(rows["epoch"], rows[column], color=shade, label=str(name), marker=".", markersize=4)
        if column == "val_miou":
            _in_percent(axes)
    if "finalist" in frame:
        _outside_legend(figure)
    return figure


def confusion(matrix: np.ndarray, classes: Sequence[str]) -> Figure:
    """Where each class's pixels went: int [C, C], rows = label, columns = prediction, shown as shares of the row.

    A class without a labelled pixel has an empty row. Shares below one per cent are not written.
    """
    total = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, total, out=np.full(matrix.shape, np.nan), where=total > 0)
    side = 2.2 + 0.36 * len(classes)
    figure = _figure(side + 0.8, side)
    axes = _dressed(
        figure.add_subplot(), "share of each class's pixels, by what was predicted", "predicted", "labelled"
    )
    picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(classes)), classes, rotation=90)
    axes.set_yticks(range(len(classes)), classes)
    axes.grid(False)
    for (row, column), value in np.ndenumerate(share):
        if value >= 0.01:
            shade = "white" if value > 0.5 else INK
            axes.text(column, row, f"{value:.0%}"[:-1], ha="center", va="center", fontsize=7, color=shade)
    figure.colorbar(picture, ax=axes, format=PercentFormatter(1), shrink=0.8).outline.set_visible(False)
    return figure


def slices(frame: pd.DataFrame, most: int = 12) -> Figure:
    """mIoU of each slice of a split against the whole, a panel a way to cut and a colour a split.

    `frame` has a row a slice: split, by (`all` for the whole), slice, scenes and miou (0-1). Of a way with more than
    `most` slices, those with the lowest mIoU are shown.
    """
    ways = [by for by in dict.fromkeys(frame["by"]) if by != "all"]
    shown = {}
    for by in ways:
        rows = frame[frame["by"] == by]
        lowest = rows.groupby("slice")["miou"].min().nsmallest(most).index
        shown[by] = rows[rows["slice"].isin(lowest)]
    heights = [max(1, rows["slice"].nunique()) for rows in shown.values()]
    figure = _figure(9, 1.4 + 0.28 * sum(heights) + 0.5 * len(ways))
    panels = np.atleast_1d(figure.subplots(len(ways), 1, sharex=True, height_ratios=heights))
    for by, axes in zip(ways, panels, strict=True):
        rows = shown[by]
        names = list(dict.fromkeys(rows["slice"]))
        _dressed(axes, f"by {by}", "")
        for (split, of_split), shade in zip(rows.groupby("split", sort=False), _endless(SERIES), strict=False):
            whole = frame[(frame["by"] == "all") & (frame["split"] == split)]["miou"]
            axes.axvline(float(whole.iloc[0]), color=shade, linestyle=":", linewidth=1)
            places = [names.index(name) for name in of_split["slice"]]
            axes.scatter(of_split["miou"], places, color=shade, s=30, label=str(split), zorder=3)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
    panels[-1].set_xlabel("mIoU; dotted: the whole split", fontsize=9, color=INK)
    panels[-1].xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    handles = {name: handle for axes in panels for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    return figure


def frontier(frame: pd.DataFrame, budget_ms: float, score: str = "val_miou", by: str = "network") -> Figure:
    """Accuracy against latency, the staircase of the best model per latency, and what lies beyond the budget.

    Args:
        frame: a row a point, with p95_ms (milliseconds), `score` (mIoU, 0-1) and `by`, the name that colours it. With
            device_id, each device has a staircase.
        budget_ms: the latency budget, milliseconds.
    """
    points = frame.dropna(subset=["p95_ms", score])
    figure = _figure(7, 4.4)
    axes = _dressed(figure.add_subplot(), "accuracy against latency", "p95 latency, ms", SCORES.get(score, score))
    for name, rows, shade in _by_name(points, by):
        axes.scatter(rows["p95_ms"], rows[score], color=shade, label=name, s=36, zorder=3, edgecolor="white")
    longest = max([budget_ms, *points["p95_ms"]]) * 1.08
    devices = [rows for _, rows in points.groupby("device_id")] if "device_id" in points else [points]
    for place, rows in enumerate(devices):
        best = staircase(rows, score)
        x, y = [*best["p95_ms"], longest], [*best[score], best[score].max()]
        label = "frontier" + (" of a device" if len(devices) > 1 else "") if place == 0 else None
        axes.step(x, y, where="post", color=INK, linewidth=1, zorder=2, label=label)
    axes.set_xlim(0, longest)
    axes.axvline(budget_ms, color=ACCENT, linestyle="--", linewidth=1.2, label=f"budget, {budget_ms:g} ms")
    axes.axvspan(budget_ms, longest, color=ACCENT, alpha=0.06, linewidth=0)
    _in_percent(axes)
    _outside_legend(figure)
    return figure


def zoo(frame: pd.DataFrame, budget_ms: float) -> Figure:
    """What networks cost: p95 latency against multiply-adds, both logarithmic, each with its name; the area of a point
    grows with the parameters.

    `frame` has a row a network: network, p95_ms, multiply_adds, parameters.
    """
    figure = _figure(9, 5.5)
    axes = _dressed(figure.add_subplot(), "cost of the networks", "p95 latency, ms", "multiply-adds, G")
    giga = frame["multiply_adds"] / 1e9
    fits = frame["p95_ms"] <= budget_ms
    axes.scatter(
        frame["p95_ms"], giga, s=12 + 6 * frame["parameters"] / 1e6, c=np.where(fits, SERIES[2], "#9aa5b1"), alpha=0.7
    )
    for name, x, y in zip(frame["network"], frame["p95_ms"], giga, strict=True):
        axes.annotate(name, (x, y), xytext=(5, 3), textcoords="offset points", fontsize=7, color=INK)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.axvline(budget_ms, color=ACCENT, linestyle="--", linewidth=1.2, label=f"budget, {budget_ms:g} ms")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())
    _outside_legend(figure)
    return figure


def schedules(rates: Mapping[str, Sequence[float]], momenta: Mapping[str, Sequence[float]]) -> Figure:
    """Learning rate and momentum over training, a line a schedule, at equal distances from the start to the end;
    `momenta` has those that steer it."""
    figure = _figure(9, 3.6)
    shades = dict(zip(rates, _endless(SERIES), strict=False))
    panels = {"learning rate": rates, **({"momentum, or first beta": momenta} if momenta else {})}
    for position, (title, curves) in enumerate(panels.items(), start=1):
        axes = _dressed(figure.add_subplot(1, len(panels), position), title, "share of training")
        for name, values in curves.items():
            axes.plot(np.linspace(0, 1, len(values)), values, color=shades[name], label=name)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _outside_legend(figure)
    return figure


def rates(frame: pd.DataFrame, chosen: float) -> Figure:
    """Loss over the learning rate of a range test: `frame` has learning_rate, loss and smooth; `chosen` is marked."""
    figure = _figure(7, 3.6)
    axes = _dressed(figure.add_subplot(), "learning-rate range test", "learning rate", "training loss")
    axes.plot(frame["learning_rate"], frame["loss"], color=PALE, linewidth=1.0)
    axes.plot(frame["learning_rate"], frame["smooth"], color=SERIES[0], label="smoothed loss")
    axes.axvline(chosen, color=ACCENT, linestyle="--", linewidth=1.2, label=f"steepest fall, {chosen:.2g}")
    axes.set_xscale("log")
    low, high = frame["smooth"].min(), frame["smooth"].iloc[0]
    axes.set_ylim(low - 0.1 * (high - low), high + 0.6 * (high - low))
    _outside_legend(figure)
    return figure


def overfit(frame: pd.DataFrame, goal: float) -> Figure:
    """Loss and mIoU of networks that learn a few scenes by heart: `frame` has network, step, loss and miou (0-1)."""
    figure = _figure(9, 3.4)
    panels = [("loss", "training loss"), ("miou", "mIoU of the scenes that are learnt")]
    for position, (column, title) in enumerate(panels, start=1):
        axes = _dressed(figure.add_subplot(1, 2, position), title, "step")
        for name, rows, shade in _by_name(frame, "network"):
            axes.plot(rows["step"], rows[column], color=shade, label=name, marker=".", markersize=4)
    axes.axhline(goal, color=ACCENT, linestyle="--", linewidth=1.2, label=f"goal, {goal:.0%}")
    _in_percent(axes)
    _outside_legend(figure, axes)
    return figure


def study(frame: pd.DataFrame, variants: Sequence[str]) -> Figure:
    """The scores of settings that were trained with several seeds: a dot a seed, a stroke at the mean. `frame` has
    variant, val_miou and test_miou (0-1); the first of `variants` is on top."""
    figure = _figure(9, 1.2 + 0.45 * len(variants))
    for position, column in enumerate(("val_miou", "test_miou"), start=1):
        axes = _dressed(figure.add_subplot(1, 2, position), SCORES[column], "")
        for place, variant in enumerate(variants):
            scores = frame.loc[frame["variant"] == variant, column]
            axes.scatter(scores, [place] * len(scores), color=SERIES[0], s=18, alpha=0.7)
            axes.scatter([scores.mean()], [place], color=ACCENT, marker="|", s=220, linewidths=2)
        axes.set_yticks(range(len(variants)), variants if position == 1 else [""] * len(variants))
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))  # 32.5% as well as 30%
    return figure


def staircase(frame: pd.DataFrame, score: str = "val_miou") -> pd.DataFrame:
    """The rows of `frame` that no other row beats: none is as fast (p95_ms) with a higher `score`. Fastest first."""
    ordered = frame.sort_values(["p95_ms", score], ascending=[True, False])
    best_before = ordered[score].cummax().shift(fill_value=-np.inf)
    return ordered[ordered[score] > best_before]


def search(frame: pd.DataFrame) -> Figure:
    """A study at a glance: the score of each trial in order, then against each setting. Hollow points were pruned.

    `frame` has a row a trial: number, state, val_miou (0-1), network, loss, learning_rate and crop.
    """
    trials = frame.dropna(subset=["val_miou"]).sort_values("number")
    complete = trials[trials["state"] == "complete"]
    figure = _figure(10, 6)
    axes = figure.subplots(2, 2)
    panels = {
        "number": "trial",
        "learning_rate": "peak learning rate",
        "loss": "loss",
        "crop": "crop, share of the scene",
    }
    for column, panel in zip(panels, axes.flat, strict=True):
        _dressed(panel, f"by {panels[column].split(',')[0]}", panels[column], "validation mIoU")
        _trials(panel, trials, column)
        _in_percent(panel)
    history, rate, *_ = axes.flat
    history.step(
        complete["number"], complete["val_miou"].cummax(), where="post", color=INK, linewidth=1, label="best so far"
    )
    history.xaxis.set_major_locator(MaxNLocator(integer=True))
    rate.set_xscale("log")
    rate.xaxis.set_minor_locator(NullLocator())
    rate.set_xticks(_round_ticks(trials["learning_rate"]))
    rate.xaxis.set_major_formatter(ScalarFormatter())
    _outside_legend(figure, of=history)
    return figure


def _trials(axes: Axes, trials: pd.DataFrame, column: str) -> None:
    """One panel's points; names (losses, crops) become evenly spaced positions, each network a little to the side."""
    names = [] if column in ("number", "learning_rate") else sorted(trials[column].unique())
    groups = list(_by_name(trials, "network"))
    for place, (network, rows, shade) in enumerate(groups):
        x = rows[column].map(names.index) + 0.12 * (place - (len(groups) - 1) / 2) if names else rows[column]
        faces = [shade if state == "complete" else "none" for state in rows["state"]]
        axes.scatter(x, rows["val_miou"], facecolors=faces, edgecolors=shade, s=32, zorder=3)
        axes.scatter([], [], color=shade, s=32, label=network)
    if names:
        axes.set_xticks(range(len(names)), [str(name).replace("_", "\n") for name in names])
        axes.set_xlim(-0.5, len(names) - 0.5)


def _round_ticks(values: pd.Series) -> list[float]:
    """1, 2 and 5 times the powers of ten inside the values' range, or the value itself where none is."""
    ticks = [digit * 10.0**power for power in range(-8, 2) for digit in (1, 2, 5)]
    return [tick for tick in ticks if values.min() <= tick <= values.max()] or list(values[:1])


def _by_name(frame: pd.DataFrame, column: str) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """Name, rows and colour of each value of `column`, in alphabetical order."""
    for (name, rows), shade in zip(frame.groupby(column), _endless(SERIES), strict=False):
        yield str(name), rows, shade


def _endless(colours: Sequence[str]) -> Iterator[str]:
    while True:
        yield from colours


def _figure(width: float, height: float) -> Figure:
    """An empty figure; width and height in inches at 120 dots an inch."""
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def _dressed(axes: Axes, title: str, x: str, y: str = "") -> Axes:
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.set_ylabel(y, fontsize=9, color=INK)
    axes.tick_params(labelsize=8, colors=INK, length=0)
    axes.grid(color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    return axes


def _in_percent(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], min_n_ticks=3))


def _outside_legend(figure: Figure, of: Axes | None = None) -> None:
    handles, names = (of or figure.axes[0]).get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(5, len(names)), fontsize=8, frameon=False)


def _same_size(image: np.ndarray, other: np.ndarray) -> None:
    if image.shape[:2] != other.shape[:2]:
        raise ValueError(f"sizes differ: {image.shape[:2]} and {other.shape[:2]}")
