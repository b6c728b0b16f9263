"""How often training draws a scene: by the weight of its source, and more often where it shows a rare class."""

import numpy as np

from roadseg.config import Config
from roadseg.scenes.index import of_run


def by_source(config: Config) -> list[float]:
    """Of each scene of `index.labelled(config, "train")`, in that order, what data.weights says, against 1."""
    pairs = (source for source, scene in of_run(config) if scene.split == "train" and scene.label)
    return [config.data.weights.get(source, 1.0) for source in pairs]


def by_classes(draws: np.ndarray, shows: np.ndarray, rare: float) -> np.ndarray:
    """`draws` (float64 [scenes]), times each scene's repeat factor (Gupta et al. 2019, LVIS, appendix B.2).

    `shows`: bool [scenes, C], which classes a scene shows. A class that is shown by a share f of what is drawn, under
    `rare` (0 to 1), asks for sqrt(rare / f) times as much, and a scene follows the rarest of its classes.
    """
    share = np.average(shows, axis=0, weights=draws)
    asked = np.sqrt(rare / np.where(share > 0, share, 1))
    return draws * np.maximum(1, (shows * asked).max(axis=1))
