"""Evaluate's tables, from its candidates (entries of candidates.json) and their confusions: what DVC, MLflow and the
README show are these same files."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from roadseg.metrics import scores

Judged = dict[str, np.ndarray]
"""Split -> per-scene confusion, int64 [S, C, C]."""
TIMES = ("p50_ms", "p95_ms", "p99_ms", "p95_low_ms", "p95_high_ms", "stable", "n")


def classes(judged: dict[str, Judged], names: Sequence[str]) -> pd.DataFrame:
    """A row a candidate, split and class; IoU is empty where no label has the class. `pixels` are labelled ones."""
    rows = []
    for candidate, splits in judged.items():
        for split, matrices in splits.items():
            if not len(matrices):
                continue
            pixels = matrices.sum(axis=(0, 2))
            for place, iou in enumerate(scores(matrices).iou):
                rows.append((candidate, split, place, names[place], iou, int(pixels[place])))
    return pd.DataFrame(rows, columns=["name", "split", "class_id", "class_name", "iou", "pixels"])


def leader(candidate: dict[str, Any], names: Sequence[str]) -> pd.DataFrame:
    """A row a class of one candidate: its IoU in val and test, empty where the split lacks the class."""
    splits = {split: (candidate[split] or {"iou": {}})["iou"] for split in ("val", "test")}
    return pd.DataFrame({"class": list(names)} | {f"{s}_iou": [iou.get(n) for n in names] for s, iou in splits.items()})


def confusion(judged: dict[str, Judged], names: Sequence[str]) -> pd.DataFrame:
    """A row a candidate, split, label and prediction that came together: pixels, and their share of the label's."""
    rows = []
    for candidate, splits in judged.items():
        for split, matrices in splits.items():
            total = matrices.sum(axis=0)
            for label, prediction in zip(*np.nonzero(total), strict=True):
                pixels = int(total[label, prediction])
                share = round(pixels / int(total[label].sum()), 6)
                rows.append((candidate, split, names[label], names[prediction], pixels, share))
    return pd.DataFrame(rows, columns=["name", "split", "label", "prediction", "pixels", "share"])


def latency(candidates: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """A row a candidate and form: its certificate's numbers, its accuracy, whether it is valid and chosen."""
    rows = []
    for candidate in candidates:
        for place, form in enumerate(candidate["forms"]):
            timed = form["certificate"]
            rows.append(
                {key: candidate[key] for key in ("name", "network")}
                | {key: form[key] for key in ("engine", "precision", "threads", "device")}
                | {key: timed[key] for key in TIMES}
                | {f"{part}_p95_ms": times["p95_ms"] for part, times in timed["parts"].items()}
                | {key: form[key] for key in ("val_miou", "valid", "why")}
                | {"chosen": place == candidate["form"]}
            )
    return pd.DataFrame(rows)


def frontier(candidates: Sequence[dict[str, Any]], budget_ms: float) -> pd.DataFrame:
    """The valid forms, fastest first; on_frontier: no valid form is as fast and more accurate."""
    rows = latency(candidates)
    columns = ["name", "network", "engine", "precision", "p95_ms", "val_miou"]
    valid = rows.loc[rows["valid"].astype(bool), columns]
    valid = valid.sort_values(["p95_ms", "val_miou"], ascending=[True, False], ignore_index=True)
    reached = valid["val_miou"].cummax().shift(fill_value=-np.inf)
    return valid.assign(within_budget=valid["p95_ms"] <= budget_ms, on_frontier=valid["val_miou"] > reached)
