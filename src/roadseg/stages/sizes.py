"""Which sizes a run's pictures have: as the camera gives them, and as the deployed model takes them.

Reads data/profile/scenes.csv. What the search times, what export builds and what `roadseg zoo` shows has these sizes.
"""

import pandas as pd

from roadseg import paths
from roadseg.config import Config
from roadseg.deploy.export import commonest, input_size
from roadseg.scenes.pack import shrunk

Size = tuple[int, int]
"""(height, width), pixels."""


def deployed(config: Config) -> tuple[Size, Size]:
    """Of the commonest labelled training image, and of the model's input: the target's where set, else what training
    sees of most images. FileNotFoundError before there is a profile, UserError where it has no training image."""
    scenes = pd.read_csv(paths.PROFILE / "scenes.csv")
    train = scenes[(scenes["split"] == "train") & scenes["label"].notna()]
    sizes = list(zip(train["image_height"].astype(int), train["image_width"].astype(int), strict=True))
    return commonest(sizes), input_size(config.target, [shrunk(size, config.train.long_side) for size in sizes])
