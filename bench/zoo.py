"""Whether every network of the zoo says the same in every engine: the share of pixels whose arg max agrees.

    python -m bench.zoo [NETWORK ...]

Each network, with running statistics moved away from where they start and each class's logits centred over the image
(or one class would have most of it), is exported at two sizes, one of them a multiple of nothing, and run on a
structured image by torch, ONNX Runtime and OpenVINO (float32). At least 99.9 % must agree. Leaves
.state/bench/zoo.csv, of which docs.zoo makes a table.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from torch import nn

from roadseg import nets, paths
from roadseg.deploy import engines, export
from roadseg.errors import reported
from roadseg.scenes.augment import MEAN, STD, normalise

SIZES = (96, 160), (75, 133)
LEAST = 0.999
VARIED = 0.5
"""A class may have so much of torch's answer at most, or agreeing would be easy."""


def structured(height: int, width: int) -> np.ndarray:
    """uint8 HWC: sky, road and some coloured boxes, a little blurred."""
    random = np.random.default_rng(0)
    image = np.full((height, width, 3), (140, 170, 210), np.uint8)
    image[height // 2 :] = (90, 85, 90)
    for _ in range(12):
        x, y = int(random.integers(width)), int(random.integers(height))
        corner = x + int(random.integers(4, 40)), y + int(random.integers(4, 30))
        cv2.rectangle(image, (x, y), corner, [int(value) for value in random.integers(0, 256, 3)], -1)
    return cv2.GaussianBlur(image, (0, 0), 1.0)


class Centred(nn.Module):
    """A network whose logits have, class by class, a mean of 0 over `image`, float32 BCHW, in eval."""

    def __init__(self, net: nn.Module, image: torch.Tensor) -> None:
        super().__init__()
        self.net = net.eval()
        self.register_buffer("means", net(image).mean(dim=(0, 2, 3))[:, None, None])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(image) - self.means
        return logits


def agreement(name: str, height: int, width: int) -> dict[str, float]:
    """Of each engine, the share of pixels with torch's class; "largest class", the share of torch's commonest."""
    torch.manual_seed(1)
    net = nets.build(name, 19)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    image = structured(height, width)
    normalised = normalise(torch.from_numpy(image[None]))
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        centred = Centred(net, normalised)
        model = Path(folder, "model.onnx")
        export.to_onnx(centred, height=height, width=width, mean=MEAN, std=STD, path=model)
        expected = centred(normalised).argmax(dim=1)[0].numpy()
        same = {
            engine: float((engines.open_session(model, engine, "float32", 2).run(image) == expected).mean())
            for engine in engines.ENGINES
        }
    return same | {"largest class": float(np.bincount(expected.ravel()).max() / expected.size)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(nets.NETS))
    kept = paths.state("bench", "zoo.csv")
    known = [pd.read_csv(kept)] if kept.exists() else []
    for name in parser.parse_args().networks:
        for size in SIZES:
            row = {"network": name, "size": f"{size[1]}x{size[0]}", **agreement(name, *size)}
            print(row, flush=True)
            known.append(pd.DataFrame([row]))
            frame = pd.concat(known).drop_duplicates(["network", "size"], keep="last")
            frame.to_csv(kept, index=False)
    print(frame.to_markdown(index=False, floatfmt=".5f"))
    worst = frame[list(engines.ENGINES)].min().min()
    if worst < LEAST:
        sys.exit(f"NO: the worst is {worst:.5f}, at least {LEAST} must agree")
    if not frame["largest class"].max() < VARIED:
        sys.exit(f"NO: a class has {frame['largest class'].max():.2f} of an answer, which says little")


if __name__ == "__main__":
    with reported("bench.zoo", resumes=False):
        main()
