"""The promotion card: why this model reigns, as markdown, in models/promote/card.md and on the version's page."""

from collections.abc import Mapping, Sequence
from typing import Any

from roadseg.config import Target
from roadseg.stages.contest import Decision

SHOWN = 4
"""Contenders whose classes are listed one by one."""


def render(name: str, decision: Decision, target: Target, classes: Sequence[str], protocol: Mapping[str, Any]) -> str:
    """The card of a decision that has a winner."""
    sizes = ", ".join(f"{count} {split}" for split, count in protocol["splits"].items())
    floors = ", ".join(f"{key} {value:.0%}" for key, value in target.floors.items()) or "none set"
    return "\n".join(
        [
            f"# {name}: {decision.outcome}",
            "",
            f"**{decision.reason}.**",
            "",
            f"Rule: the best validation mIoU whose p95 latency in its deployed form is within {target.budget_ms:g} ms "
            f"on {target.device}. Class floors: {floors}.",
            "",
            "| contender | val mIoU (95 %) | to the winner, points (95 %) | p95 ms | form | lowest class | test mIoU "
            "| verdict |",
            "|---|---|---|---|---|---|---|---|",
            *(_line(row, first=place == 0) for place, row in enumerate(decision.rows)),
            "",
            f"mIoU over the classes that the labels show, {protocol['resolution']}; scenes: {sizes}; space "
            f"{protocol['space']}; pre-training: {protocol['pretraining']}. Intervals: paired bootstrap over scenes. "
            "Test scores are shown and decide nothing.",
            "",
            *_per_class(decision.rows[:SHOWN], target, classes),
            "",
        ]
    )


def _line(row: Mapping[str, Any], *, first: bool) -> str:
    unstable = "" if row["stable"] in (True, None) else " (unstable)"
    cells = [
        f"**{row['name']}**" if first else row["name"],
        "–" if row["miou"] is None else f"{_percent(row['miou'])} ({_percent(row['low'])}–{_percent(row['high'])})",
        "–" if first or row["gap_low"] is None else f"{row['gap_low'] * 100:+.1f} to {row['gap_high'] * 100:+.1f}",
        "–" if row["p95_ms"] is None else f"{row['p95_ms']:.1f}{unstable}",
        row["form"] or "–",
        f"{row['lowest'] or ''} {_percent(row['lowest_iou'])}",
        _percent(row["test_miou"]),
        "winner" if first else row["verdict"],
    ]
    return f"| {' | '.join(cells)} |"


def _per_class(rows: Sequence[Mapping[str, Any]], target: Target, classes: Sequence[str]) -> list[str]:
    head = ["class", "floor", *(str(row["name"]) for row in rows)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name in classes:
        floor = _percent(target.floors.get(name))
        lines.append(f"| {' | '.join([name, floor, *(_percent(row['iou'][name]) for row in rows)])} |")
    return lines


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.1f}"
