"""Where a model is good and where it is not: its confusions on one split, cut up by what the scenes are.

A `Facts` row a scene comes from data/profile/scenes.csv, in the order of the confusions. Every mIoU is over the classes
present in the slice's own labels, whose number stands beside it: slices with other classes do not compare directly.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from roadseg.metrics import scores

COLUMNS = ["split", "by", "slice", "scenes", "pixels", "classes_present", "miou"]
BAND_NAMES = ("top third", "middle third", "bottom third")


def table(
    split: str, matrices: np.ndarray, bands: np.ndarray, facts: pd.DataFrame, edges: tuple[float, float]
) -> pd.DataFrame:
    """A row a slice: the whole split; each source, sequence, class of brightness, and band of rows.

    Takes int64 [S, C, C] and [BANDS, C, C] confusions, of each scene source, sequence and brightness (mean luma,
    0-255), and the `edges` between dark, medium and bright, the same for all splits.
    """
    rows = [("all", split, len(matrices), matrices.sum(axis=0))] if len(matrices) else []
    for by, names in _groups(facts, edges):
        for name in dict.fromkeys(names):
            chosen = np.array([one == name for one in names])
            rows.append((by, name, int(chosen.sum()), matrices[chosen].sum(axis=0)))
    rows += [("image rows", name, len(matrices), band) for name, band in zip(BAND_NAMES, bands, strict=True)]
    found = [(split, by, name, count, int(m.sum()), *_scored(m)) for by, name, count, m in rows if m.any()]
    return pd.DataFrame(found, columns=COLUMNS)


def thirds(brightness: pd.Series) -> tuple[float, float]:
    """The edges that cut these scenes into three of equal number: dark, medium, bright."""
    low, high = brightness.quantile([1 / 3, 2 / 3])
    return float(low), float(high)


def _groups(facts: pd.DataFrame, edges: tuple[float, float]) -> Iterator[tuple[str, list[str]]]:
    """Of each way to cut: its name, and the name of each scene's slice."""
    sequences = zip(facts["source"], facts["sequence"], strict=True)
    low, high = edges
    names = f"dark (up to {low:.0f})", f"medium ({low:.0f} to {high:.0f})", f"bright (over {high:.0f})"
    yield "source", list(facts["source"])
    yield "sequence", [f"{source} {sequence}" for source, sequence in sequences]
    yield "brightness", [names[(value > low) + (value > high)] for value in facts["brightness"]]


def _scored(matrix: np.ndarray) -> tuple[int, float]:
    result = scores(matrix)
    return result.classes_present, result.miou


def confused(matrix: np.ndarray, names: Sequence[str], most: int = 20) -> pd.DataFrame:
    """The pairs of classes that are taken for one another most, by pixels: int64 [C, C] confusion of a split.

    label_share: of the label's pixels; error_share: of all wrong pixels (0..1).
    """
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    rows = []
    for label, prediction in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if pixels := int(wrong[label, prediction]):
            shares = round(pixels / int(matrix[label].sum()), 6), round(pixels / int(wrong.sum()), 6)
            rows.append((names[label], names[prediction], pixels, *shares))
    return pd.DataFrame(rows, columns=["label", "prediction", "pixels", "label_share", "error_share"])


def worst(matrices: np.ndarray, facts: pd.DataFrame) -> pd.DataFrame:
    """A row a labelled scene, the lowest mIoU first: image, source, sequence, brightness, miou, classes_present."""
    kept = matrices.any(axis=(1, 2))
    found = [_scored(matrix) for matrix in matrices[kept]]
    rows = facts[["image", "source", "sequence", "brightness"]][kept].reset_index(drop=True)
    rows = rows.assign(miou=[miou for _, miou in found], classes_present=[count for count, _ in found])
    return rows.sort_values(["miou", "image"], ignore_index=True)


def across(trained: str, splits: dict[str, tuple[np.ndarray, pd.DataFrame]], taught: np.ndarray) -> pd.DataFrame:
    """The row of the train-source x eval-source table that one model makes, in long form: a row a source and split.

    Takes what it was trained on, of each split the confusions [S, C, C] and the scenes' facts, and which classes the
    training labels show (bool [C]). `miou` is over all classes present, `miou_taught` over those of them that training
    could teach; they differ where the sources' labels do.
    """
    rows = []
    for split, (matrices, facts) in splits.items():
        for source in dict.fromkeys(facts["source"]):
            matrix = matrices[(facts["source"] == source).to_numpy()].sum(axis=0)
            if matrix.any():
                count, miou = _scored(matrix)
                both = taught & (matrix.sum(axis=1) > 0)
                of_taught = scores(matrix, present=taught).miou if both.any() else None
                scenes = int((facts["source"] == source).sum())
                rows.append((trained, source, split, scenes, count, miou, int(both.sum()), of_taught))
    columns = ["trained_on", "source", "split", "scenes", "classes_present", "miou", "classes_taught", "miou_taught"]
    return pd.DataFrame(rows, columns=columns)
