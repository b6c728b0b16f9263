"""The report on a retrain's page: the decision, the numbers, a picture, the stages with their times.

In: the files that the stages left in the worktree. Out: Markdown; pictures are inside it, as data: addresses.
"""

import base64
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipelines.worktree import Ran
from roadseg import paths
from roadseg.errors import masked

PICTURES = {
    "Latency and mIoU": paths.EVALUATE / "frontier.png",
    "The median scene": paths.EVALUATE / "overlays" / "median.png",
}


def report(root: Path, ran: Sequence[Ran], *, commit: str, overrides: dict[str, Any], mlflow: str | None) -> str:
    """Markdown of a finished retrain.

    root: where its outputs are. mlflow: the server's address as a browser reaches it, None where there is none.
    """
    decision = _json(root / paths.PROMOTE / "decision.json")
    parts = [f"Code and settings of `{commit[:8]}`" + (f", with `{json.dumps(overrides)}`." if overrides else ".")]
    if mlflow:
        parts.append(" · ".join(_links(masked(mlflow), decision)))
    if (card := root / paths.PROMOTE / "card.md").is_file():
        parts.append(card.read_text(encoding="utf-8").strip())
    for title, picture in PICTURES.items():
        if (root / picture).is_file():
            data = base64.b64encode((root / picture).read_bytes()).decode()
            parts += [f"## {title}", f"![{title}](data:image/png;base64,{data})"]
    if metrics := _json(root / paths.EVALUATE / "metrics.json"):
        parts += ["## Numbers", _table(["metric", "value"], [(name, _short(value)) for name, value in metrics.items()])]
    rows = [(one.stage, one.outcome, f"{one.seconds:.1f}") for one in ran]
    parts += ["## Stages", _table(["stage", "what became of it", "seconds"], rows)]
    return "\n\n".join(parts) + "\n"


def _links(mlflow: str, decision: dict[str, Any]) -> list[str]:
    links = [f"[Runs in MLflow]({mlflow}/#/experiments)"]
    if version := decision.get("champion_version"):
        model = decision["model"]
        links.append(f"[Champion: version {version} of {model}]({mlflow}/#/models/{model}/versions/{version})")
    return links


def _json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return values


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar or a line break in a cell would end it."""
    lines = []
    for row in [header, ["---"] * len(header), *rows]:
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |")
    return "\n".join(lines)
