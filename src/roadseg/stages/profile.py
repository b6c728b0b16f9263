"""profile: what the data holds, scene by scene and class by class, and the class weights that follow from it.

Reads the index of each of data.sources; writes data/profile/: scenes.csv (a row a scene), classes.csv (a row a split
and class) and weights.json (of the training split alone).
"""

import json
from collections.abc import Callable
from functools import partial
from itertools import groupby
from operator import itemgetter

import cv2
import numpy as np
import pandas as pd

from roadseg import paths
from roadseg.config import Config
from roadseg.errors import UserError
from roadseg.labels import IGNORE, LabelSpace
from roadseg.scenes import masks, png, sources
from roadseg.scenes.index import Scene, of_run
from roadseg.scenes.parallel import in_threads
from roadseg.stages.stage import stage

ENET_C = 1.02


def run(config: Config) -> None:
    """Writes data/profile/. UserError naming the file where an image or a mask cannot be read."""
    space = sources.space_of(config)
    with stage("profile") as running:
        folder = running.folder(paths.PROFILE)
        scenes, pixels = [], []
        for source, group in groupby(of_run(config), key=itemgetter(0)):
            found = [scene for _, scene in group]
            measured = in_threads(partial(_measure, space=space), found, f"profile {source}")
            scenes += [{"source": source, **row} for row, _ in measured]
            pixels += [counts for _, counts in measured]
        table, counts = pd.DataFrame(scenes), np.array(pixels)
        if not ((table["split"] == "train") & (counts.sum(axis=1) > 0)).any():
            raise UserError(f"no scene of {', '.join(config.data.trained)} is labelled and in the train split")
        table.to_csv(folder / "scenes.csv", index=False)
        class_table(table["split"], counts, space).to_csv(folder / "classes.csv", index=False)
        train = (table["split"] == "train").to_numpy()
        weights = class_weights(counts[train], (table["height"] * table["width"]).to_numpy()[train])
        summary = {"space": space.name, "classes": space.classes, **weights}
        (folder / "weights.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def _measure(scene: Scene, space: LabelSpace) -> tuple[dict[str, object], np.ndarray]:
    """A row of scenes.csv, and the scene's pixels of each class (int64 [C]; zeros where it is unlabelled)."""
    image = png.read_rgb(scene.image)
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    edges = cv2.Laplacian(luma, cv2.CV_16S)
    counts = np.zeros(len(space.classes), np.int64)
    area = scene.height * scene.width
    shares: list[float | None] = [None] * len(counts)
    ragged = None
    if scene.label:
        ids = png.read_ids(scene.label)
        ragged = round(raggedness(ids), 4)
        pixels = masks.histogram(ids)
        if pixels[len(counts) : IGNORE].any():
            raise UserError(f"{scene.label} holds train ids that {space.name} does not have: run the remap stage again")
        counts = pixels[: len(counts)]
        shares = [round(float(count) / area, 6) for count in counts]
    row = {
        "split": scene.split,
        "image": scene.image.as_posix(),
        "label": scene.label.as_posix() if scene.label else None,
        "height": scene.height,
        "width": scene.width,
        "image_height": image.shape[0],
        "image_width": image.shape[1],
        "sequence": scene.sequence,
        "label_sha256": scene.label_sha256 or None,
        "image_sha256": scene.image_sha256,
        # Shares of the whole scene: those of the classes and of void add up to 1.
        "void_share": round(1 - int(counts.sum()) / area, 6) if scene.label else None,
        "brightness": round(cv2.mean(luma)[0], 3),  # mean luma (Rec. 601), 0-255
        # Variance of the Laplacian of luma: low is blurred (Pech-Pacheco et al. 2000).
        "blur": round(cv2.norm(edges, cv2.NORM_L2SQR) / edges.size - cv2.mean(edges)[0] ** 2, 3),
        "phash": perceptual_hash(luma),
        "ragged": ragged,
        "n_classes": int((counts > 0).sum()) if scene.label else None,
    }
    return row | {f"share_{name}": share for name, share in zip(space.classes, shares, strict=True)}, counts


def raggedness(ids: np.ndarray) -> float:
    """Of the pixels of uint8 HW ids at which the class changes along a row, the share that is a class of its own there.

    Drawn masks have few (at most 0.07 in the scenes that we know, poles included). A mask whose ids were interpolated
    has one at nearly every border (0.3 and more): between 3 and 7 there is a 5 that nobody drew.
    """
    ids = ids[::2]  # every second row says as much
    changes = ids[:, 1:] != ids[:, :-1]
    before, after = changes[:, :-1], changes[:, 1:]
    alone = before & after & (ids[:, :-2] != ids[:, 2:])
    return int(np.count_nonzero(alone)) / max(int(np.count_nonzero(before | after)), 1)


def perceptual_hash(luma: np.ndarray) -> str:
    """A difference hash (Krawetz 2013) of uint8 HW luma, 16 hex digits: images that look alike differ in few bits.

    Each of its 64 bits says whether a cell of the image, brought to 9x8, is brighter than its left neighbour.
    """
    by = max(1, min(luma.shape) // 128)  # first by a whole number, which OpenCV is much faster at
    rows, columns = luma.shape[0] // by, luma.shape[1] // by
    fewer = cv2.resize(luma[: rows * by, : columns * by], (columns, rows), interpolation=cv2.INTER_AREA)
    small = cv2.resize(fewer, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes().hex()


def class_table(splits: pd.Series, counts: np.ndarray, space: LabelSpace) -> pd.DataFrame:
    """classes.csv: pixels of a class in a split, their share of the split's non-void pixels, the scenes that show it.

    Takes the split of each scene and int64 [scenes, C] pixel counts.
    """
    rows = []
    for split in sources.SPLITS:
        of_split = counts[(splits == split).to_numpy()]
        pixels = of_split.sum(axis=0)
        for class_id, name in enumerate(space.classes):
            share = pixels[class_id] / max(pixels.sum(), 1)
            rows.append((split, class_id, name, pixels[class_id], round(share, 8), (of_split[:, class_id] > 0).sum()))
    return pd.DataFrame(rows, columns=["split", "class_id", "class_name", "pixels", "share", "scenes"])


def class_weights(counts: np.ndarray, areas: np.ndarray) -> dict[str, list[float]]:
    """Class weights from int64 [scenes, C] pixel counts and int [scenes] areas (pixels, void included) of a split.

    enet: 1 / ln(1.02 + p), p = share of the non-void pixels (Paszke et al. 2016, section 5.2).
    median_frequency: median(f) / f, f = pixels of the class / pixels of the scenes that show it (Eigen and Fergus
    2015, section 6.3.2). The median is over the classes that are there.
    inverse: 1 / p, and sqrt_inverse: 1 / sqrt(p), with their mean made 1.
    class_balanced: 1 / E, E = (1 - b^n) / (1 - b) the effective number of n samples (Cui et al. 2019, equation 2), mean
    made 1. Their b is (N - 1) / N; N is here the number of all non-void pixels, and so close to inverse but for classes
    of large shares: 1 / (1 - exp(-p)).
    But for ENet's, a class that is not there has weight 0.
    """
    pixels = counts.sum(axis=0)
    shares = pixels / max(pixels.sum(), 1)
    frequency = pixels / np.maximum((areas[:, None] * (counts > 0)).sum(axis=0), 1)
    there = frequency > 0
    balanced = _where(there, lambda f: np.median(f) / f, frequency)
    weights = {
        "enet": 1 / np.log(ENET_C + shares),
        "median_frequency": balanced,
        "inverse": _mean_one(_where(there, lambda p: 1 / p, shares)),
        "sqrt_inverse": _mean_one(_where(there, lambda p: 1 / np.sqrt(p), shares)),
        # (1 - 1/N)^n is exp(-n/N) for the N of any data set, and the constant goes with the mean
        "class_balanced": _mean_one(_where(there, lambda p: 1 / -np.expm1(-p), shares)),
    }
    return {"shares": shares.round(8).tolist()} | {name: values.round(6).tolist() for name, values in weights.items()}


def _where(there: np.ndarray, function: Callable[[np.ndarray], np.ndarray], values: np.ndarray) -> np.ndarray:
    """float64: the function of the values that are there, 0 for the others."""
    result = np.zeros(len(values))
    result[there] = function(values[there])
    return result


def _mean_one(weights: np.ndarray) -> np.ndarray:
    """Scaled so that the weights of the classes that are there have mean 1."""
    return weights / weights[weights > 0].mean()
