"""Confusion matrices and what is read off them: mIoU and its companions, and bootstrap intervals over scenes.

A matrix is int64 [C, C], counts of pixels, rows = label, columns = prediction; a split is a stack of them, [S, C, C],
one a scene. All shares are 0..1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from roadseg.labels import IGNORE

INTERVAL = (2.5, 50.0, 97.5)
"""Percentiles: a 95 % interval and its median."""


def confusion(prediction: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
    """Counts of (label, prediction) pairs over the pixels whose label is not 255: int64 [C, C].

    Both are integer arrays of the same shape. Raises ValueError on another shape, or a value outside 0..classes-1.
    """
    if prediction.shape != label.shape:
        raise ValueError(f"`prediction` is {prediction.shape}, `label` is {label.shape}: they must have one shape")
    labelled = label != IGNORE
    rows, columns = label[labelled].astype(np.int64), prediction[labelled].astype(np.int64)
    for name, ids in (("label", rows), ("prediction", columns)):
        if ids.size and not 0 <= ids.min() <= ids.max() < classes:
            raise ValueError(f"`{name}` holds ids {ids.min()}..{ids.max()}: they must be 0..{classes - 1}")
    return np.bincount(rows * classes + columns, minlength=classes**2).reshape(classes, classes)


@dataclass(frozen=True)
class Scores:
    """Of one confusion matrix. Means are over the classes present in its labels, the same for every candidate."""

    miou: float
    iou: tuple[float | None, ...]
    """Per class, in the label space's order; None where no label has the class."""
    pixel_accuracy: float
    mean_accuracy: float
    mean_dice: float
    classes_present: int
    """How many classes the means are over."""


def scores(matrix: np.ndarray, present: Sequence[bool] | np.ndarray | None = None) -> Scores:
    """Scores of a matrix [C, C], or of a split [S, C, C] taken as one matrix (never a mean over scenes).

    A class that is predicted but in no label has no IoU and is not in the means; its pixels still count as errors of
    the classes that they belong to. `present`, bool [C], restricts the means further. Raises ValueError if no pixel
    is labelled.
    """
    counts = np.asarray(matrix, dtype=np.float64)
    counts = counts.sum(axis=0) if counts.ndim == 3 else counts
    hits, labelled, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    counted = labelled > 0 if present is None else (labelled > 0) & np.asarray(present, dtype=bool)
    if not counted.any():
        raise ValueError("no labelled pixel of a class that counts: there is nothing to score")
    iou = hits[counted] / (labelled + predicted - hits)[counted]
    values = iter(iou.tolist())
    return Scores(
        miou=float(iou.mean()),
        iou=tuple(next(values) if here else None for here in counted),
        pixel_accuracy=float(hits.sum() / labelled.sum()),
        mean_accuracy=float((hits[counted] / labelled[counted]).mean()),
        mean_dice=float((2 * hits[counted] / (labelled + predicted)[counted]).mean()),
        classes_present=int(counted.sum()),
    )


def paired_bootstrap(a: np.ndarray, b: np.ndarray, seed: int, draws: int = 1000) -> dict[str, float]:
    """95 % interval of mIoU(a) - mIoU(b) when the scenes are drawn anew, the same scenes for both: low, median, high.

    `a` and `b` are the per-scene matrices [S, C, C] of two models on the same scenes. Neighbouring frames of one
    drive are alike, so that the true interval is wider than this if anything. Raises ValueError where the scenes'
    labels differ.
    """
    if a.shape != b.shape or not np.array_equal(a.sum(axis=2), b.sum(axis=2)):
        raise ValueError("`a` and `b` must be matrices of the same scenes: their labels differ")
    times = _draw(len(a), seed, draws)
    return _interval(_drawn_miou(a, times) - _drawn_miou(b, times))


def bootstrap_interval(a: np.ndarray, seed: int = 0, draws: int = 1000) -> dict[str, float]:
    """95 % interval of mIoU(a) when the scenes of `a`, [S, C, C], are drawn anew: low, median, high."""
    return _interval(_drawn_miou(a, _draw(len(a), seed, draws)))


def _draw(scenes: int, seed: int, draws: int) -> np.ndarray:
    """How often each scene is in each draw: [draws, scenes], every row summing to `scenes`."""
    return np.random.default_rng(seed).multinomial(scenes, np.full(scenes, 1 / scenes), size=draws)


def _drawn_miou(matrices: np.ndarray, times: np.ndarray) -> np.ndarray:
    """mIoU of each draw, over the classes present in its labels: [draws]."""
    scenes, classes, _ = matrices.shape
    flat = matrices.reshape(scenes, classes**2).astype(np.float64)
    drawn = (times.astype(np.float64) @ flat).reshape(-1, classes, classes)
    hits, labelled = np.diagonal(drawn, axis1=1, axis2=2), drawn.sum(axis=2)
    union = labelled + drawn.sum(axis=1) - hits
    present = labelled > 0
    iou = np.where(present, hits / np.maximum(union, 1), 0.0)
    return iou.sum(axis=1) / np.maximum(present.sum(axis=1), 1)


def _interval(values: np.ndarray) -> dict[str, float]:
    low, median, high = np.percentile(values, INTERVAL)
    return {"low": float(low), "median": float(median), "high": float(high)}
