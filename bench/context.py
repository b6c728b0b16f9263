"""How far colour and place alone go: a pixel classifier without context, the mark that networks must pass.

Reads data/remapped/SOURCE (so fetch and remap have run) and prints one table row: `python bench/context.py
[SOURCE ...]`, `streets` where none is named.
The classifier is scikit-learn's random forest on a pixel's red, green, blue, row and column.
"""

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image
from sklearn.ensemble import RandomForestClassifier

from roadseg import paths
from roadseg.scenes.index import read_index

IGNORE = 255
Pair = tuple[np.ndarray, np.ndarray]
"""image uint8 [H, W, 3], train ids uint8 [H, W]."""


def features(image: np.ndarray) -> np.ndarray:
    """float32 [pixels, 5]: red, green, blue 0-255, then row and column 0-1."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    place = np.stack([rows / image.shape[0], columns / image.shape[1]], axis=-1)
    return np.concatenate([image, place], axis=-1).reshape(-1, 5).astype(np.float32)


def measure(train: Iterable[Pair], test: Iterable[Pair], pixels: int = 400, seed: int = 0) -> dict[str, Any]:
    """Fit on `pixels` random pixels of every training scene, score ten times as many of every test scene.

    Twice, with and without weights that balance the classes; the better mIoU counts, so that the mark is a fair one.
    Returns miou (mean over the classes that the test labels have), iou by train id, pixel_accuracy (all 0-1), seconds.
    """
    begun, rng = time.perf_counter(), np.random.default_rng(seed)
    values, truth = _sample(train, pixels, rng)
    seen, expected = _sample(test, 10 * pixels, rng)
    results = []
    for balance in (None, "balanced_subsample"):
        forest = RandomForestClassifier(40, min_samples_leaf=6, class_weight=balance, random_state=seed)
        found = forest.fit(values, truth).predict(seen)
        pairs = np.bincount(expected.astype(np.int64) * IGNORE + found, minlength=IGNORE**2)
        results.append(_scores(pairs.reshape(IGNORE, IGNORE)))
    return max(results, key=lambda result: result["miou"]) | {"seconds": round(time.perf_counter() - begun, 1)}


def _sample(scenes: Iterable[Pair], pixels: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Features and train ids of up to `pixels` random labelled pixels of every scene."""
    values, truth = [], []
    for image, label in scenes:
        chosen = rng.choice(label.size, min(pixels, label.size), replace=False)
        chosen = chosen[label.reshape(-1)[chosen] != IGNORE]
        values.append(features(image)[chosen])
        truth.append(label.reshape(-1)[chosen])
    return np.concatenate(values), np.concatenate(truth)


def _scores(matrix: np.ndarray) -> dict[str, Any]:
    hits, union = np.diag(matrix), matrix.sum(axis=0) + matrix.sum(axis=1) - np.diag(matrix)
    present = np.flatnonzero(matrix.sum(axis=1))
    iou = {int(i): float(hits[i] / union[i]) for i in present}
    return {"miou": float(np.mean(list(iou.values()))), "iou": iou, "pixel_accuracy": float(hits.sum() / matrix.sum())}


def _pairs(sources: Sequence[str], split: str) -> Iterable[Pair]:
    for scene in (scene for source in sources for scene in read_index(paths.REMAPPED / source / "index.csv")):
        if scene.split == split and scene.label:
            image = np.asarray(Image.open(scene.image).convert("RGB"))
            label = Image.open(scene.label).resize(image.shape[1::-1], Image.Resampling.NEAREST)
            yield image, np.asarray(label)


def run(sources: Sequence[str]) -> dict[str, Any]:
    """Measure on remapped sources, all together, and print the row of docs/results.md."""
    train, test = (_pairs(sources, split) for split in ("train", "test"))
    result = measure(train, test)
    print("| no-context pixel classifier | test mIoU % | test pixel accuracy % | seconds |\n|---|---|---|---|")
    miou, accuracy = 100 * result["miou"], 100 * result["pixel_accuracy"]
    print(f"| {'+'.join(sources)}: RGB + position | {miou:.1f} | {accuracy:.1f} | {result['seconds']} |")
    return result


if __name__ == "__main__":
    run(sys.argv[1:] or ["streets"])
