"""The best model for each latency budget, over the registry's versions and today's candidates.

Reads the records of every version of the target's registered model, and models/evaluate/candidates.json where it is
there; prints a table and writes models/frontier.png. Numbers are as recorded: validation mIoU of their day, p95 of the
device that is named.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from roadseg import figures, paths, tracking
from roadseg.config import Config
from roadseg.errors import UserError
from roadseg.scenes import sources

COLUMNS = ("name", "network", "version", "alias", "form", "device_id", "p95_ms", "val_miou", "test_miou", "sha256")


def run(config: Config, out: Path = Path("models/frontier.png")) -> None:
    """Show the frontier. Raises UserError where no model is known yet."""
    with tracking.open_registry(create=False) as registry:
        name = config.target.registered_name(sources.space_of(config).name)
        rows = [
            {
                "name": version.tags.get("roadseg.finalist", ""),
                "network": version.tags.get("roadseg.network", ""),
                "version": str(version.number),
                "alias": ", ".join(version.aliases),
                "form": version.tags.get("roadseg.form", ""),
                "device_id": version.tags.get("roadseg.device_id", ""),
                "p95_ms": float(version.tags.get("roadseg.p95_ms") or "nan"),
                "val_miou": float(version.tags.get("roadseg.val_miou") or "nan"),
                "test_miou": float(version.tags.get("roadseg.test_miou") or "nan"),
                "sha256": version.tags.get("roadseg.onnx_sha256", ""),
            }
            for version in registry.versions(name)
        ]
    frame = pd.DataFrame(rows + candidates(paths.EVALUATE / "candidates.json"), columns=list(COLUMNS))
    frame = frame.drop_duplicates("sha256").dropna(subset=["p95_ms", "val_miou"])
    if frame.empty:
        raise UserError(f"{name} has no version and there are no candidates: run `dvc repro` first")
    # A latency is of its device: models of two machines are not compared by it.
    best = pd.concat([figures.staircase(rows) for _, rows in frame.groupby("device_id")])
    out.parent.mkdir(parents=True, exist_ok=True)
    figures.frontier(frame, config.target.budget_ms).savefig(out)
    _show(best, name, config.target.budget_ms, left_out=len(frame) - len(best))
    Console().print(f"picture: {out}", markup=False)


def candidates(path: Path) -> list[dict[str, Any]]:
    """Today's candidates that have a form, as rows of `COLUMNS`; none where evaluate has not run."""
    if not path.exists():
        return []
    rows = []
    for entry in json.loads(path.read_text(encoding="utf-8")):
        if entry["form"] is None:
            continue
        form = entry["forms"][entry["form"]]
        rows.append(
            {
                "name": entry["name"],
                "network": entry["network"],
                "version": "",
                "alias": "",
                "form": f"{form['engine']} {form['precision']}, {form['threads']} threads, {form['device']}",
                "device_id": form["certificate"]["device_id"],
                "p95_ms": form["certificate"]["p95_ms"],
                "val_miou": entry["val"]["miou"],
                "test_miou": entry["test"]["miou"] if entry["test"] else float("nan"),
                "sha256": entry["onnx_sha256"],
            }
        )
    return rows


def _show(best: pd.DataFrame, name: str, budget_ms: float, left_out: int) -> None:
    table = Table(
        "budget from, ms", "model", "version", "form", "device", "val mIoU", "test mIoU",
        title=f"{name}: the best model for a latency budget",
        caption=f"{left_out} more are slower and no better; the target's budget is {budget_ms:g} ms",
    )  # fmt: skip
    for column in table.columns:
        column.overflow = "fold"
    for row in best.to_dict("records"):
        test = "–" if pd.isna(row["test_miou"]) else f"{row['test_miou']:.1%}"
        version = f"{row['version']} {row['alias']}".strip() or "candidate"
        words = row["name"], version, row["form"], row["device_id"]
        style = "" if row["p95_ms"] <= budget_ms else "dim"
        table.add_row(f"{row['p95_ms']:.1f}", *words, f"{row['val_miou']:.1%}", test, style=style)
    Console().print(table)
