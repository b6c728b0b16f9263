"""How fast remap and profile are, and in how much memory: the table of docs/results.md.

    python -m bench.data [--scenes 2000]

Draws scenes into .state/bench/data/ (colour masks, JPEG images; kept), sends them through the stages as a `folder`
source, and prints a table: seconds on every core and on one, how many times as long a straightforward per-colour NumPy
loop takes, the share of one core's time that reading, decoding, encoding and writing image files takes, what ten more
scenes cost, and the peak of memory with a tenth of the scenes and with all.
"""

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from roadseg import config, labels, paths
from roadseg.errors import reported
from roadseg.scenes import png
from roadseg.scenes.parallel import in_threads
from roadseg.stages import profile, remap

MORE = 10
SPACE = labels.load("cityscapes19")
VISTAS = 25_000, 8.0  # scenes and mean megapixels of Mapillary Vistas, for the last row


def scene(number: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture (uint8 HWC) and a mask of colours (uint8 HWC): 60 blobs over bands, texture and noise."""
    random = np.random.default_rng(number)
    ids = np.repeat([10, 2, 8, 0], -(-height // 4)).astype(np.uint8)[:height, None].repeat(width, axis=1)
    for _ in range(60):
        centre = int(random.integers(width)), int(random.integers(height))
        axes = int(random.integers(3, width // 12)), int(random.integers(3, height // 8))
        cv2.ellipse(ids, centre, axes, float(random.integers(180)), 0, 360, int(random.integers(19)), -1)
    colours = np.array(SPACE.colours, np.uint8)[ids]
    coarse = random.integers(0, 60, (height // 8, width // 8, 3), dtype=np.uint8)
    texture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.add(colours // 2, texture), colours


def draw(folder: Path, scenes: int, height: int, width: int) -> Path:
    """`scenes` scenes under `folder`, made where they are not there yet."""

    def one(number: int) -> None:
        image, mask = (
            folder / kind / f"{number:05}.{suffix}" for kind, suffix in (("images", "jpg"), ("masks", "png"))
        )
        if not mask.exists():
            picture, colours = scene(number, height, width)
            Image.fromarray(picture).save(image, quality=90)
            Image.fromarray(colours).save(mask)

    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    in_threads(one, range(scenes), f"draw {width}x{height}")
    return folder


def settings(scenes: int) -> config.Config:
    described = {
        "root": "unused",
        "images": "images/{name}.jpg",
        "masks": "masks/{name}.png",
        "encoding": "colour",
        "space": SPACE.name,
        "classes": {name: [colour] for name, colour in zip(SPACE.classes, SPACE.colours, strict=True)},
        "split": {"fractions": {"train": 0.8, "val": 0.2}},
        "expect": {"train": scenes},
    }
    base = config.read()
    sources = config.Sources.model_validate(base.sources.model_dump() | {"folder": described})
    data = base.data.model_copy(update={"sources": ("folder",), "space": None})
    return base.model_copy(update={"sources": sources, "data": data})


def child(folder: Path, scenes: int, cores: int) -> dict[str, float]:
    """Seconds of remap and profile of the first `scenes` scenes on so many cores, and the peak of memory, in MB."""
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
    given = settings(scenes)
    with tempfile.TemporaryDirectory(dir=folder.parent) as project:
        os.chdir(project)
        os.environ["ROADSEG_HOME"] = project
        files = timed(png, "read", "write_ids", "size")
        place(folder, 0, scenes - MORE)
        begun = time.perf_counter()
        remap.run(given, "folder")
        remapped = time.perf_counter()
        inside = sum(files.values())
        place(folder, scenes - MORE, scenes)
        added = time.perf_counter()
        remap.run(given, "folder")
        again = time.perf_counter()
        files.update(dict.fromkeys(files, 0.0))
        profile.run(given)
        ended = time.perf_counter()
        inside += sum(files.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    first = (remapped - begun) * scenes / (scenes - MORE)
    share = inside / (remapped - begun + ended - again)
    return {"remap": first, "profile": ended - again, "more": again - added, "peak": peak, "files": share}


def timed(module: ModuleType, *names: str) -> dict[str, float]:
    """Seconds spent in the module's functions of these names, from now on; of all threads together."""
    seconds = dict.fromkeys(names, 0.0)

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            begun = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                seconds[name] += time.perf_counter() - begun

        return call

    for name in names:
        setattr(module, name, watched(name, getattr(module, name)))
    return seconds


def place(folder: Path, first: int, last: int) -> None:
    """Links scenes first .. last - 1 into the working directory's raw folder."""
    for kind in ("images", "masks"):
        raw = Path("data/raw/folder", kind)
        raw.mkdir(parents=True, exist_ok=True)
        for path in sorted((folder / kind).iterdir())[first:last]:
            (raw / path.name).hardlink_to(path)


def measure(folder: Path, scenes: int, cores: int) -> dict[str, float]:
    """`child` in a process of its own."""
    command = [sys.executable, "-m", "bench.data", "--child", str(folder), str(scenes), str(cores)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def naive(folder: Path, scenes: int) -> float:
    """Seconds a scene of the straightforward loop: a comparison of the whole mask for each colour, twice."""
    begun = time.perf_counter()
    for number in range(scenes):
        image = np.asarray(Image.open(folder / "images" / f"{number:05}.jpg"))
        mask = np.asarray(Image.open(folder / "masks" / f"{number:05}.png"))
        ids = np.full(mask.shape[:2], 255, np.uint8)
        for class_id, colour in enumerate(SPACE.colours):
            ids[(mask == np.array(colour)).all(axis=-1)] = class_id
        Image.fromarray(ids).save(io.BytesIO(), "PNG")
        [(ids == class_id).sum() for class_id in range(len(SPACE.classes))]
        image.mean()
    return (time.perf_counter() - begun) / scenes


def row(scenes: int, height: int, width: int) -> dict[str, Any]:
    folder = draw(paths.state("bench", "data", f"{width}x{height}", ""), scenes, height, width)
    sample = min(scenes, max(3, int(40e6 / (height * width))))  # the loop is slow: some 40 megapixels of it
    loop = naive(folder, sample)
    cores = len(os.sched_getaffinity(0))
    few, every, one = (
        measure(folder, max(2 * MORE, scenes // 10), cores),
        measure(folder, scenes, cores),
        measure(folder, scenes, 1),
    )
    here, alone = (times["remap"] + times["profile"] for times in (every, one))
    return {
        "scenes": f"{scenes} of {width}x{height}",
        "seconds": here,
        "remap": every["remap"],
        "profile": every["profile"],
        "one core": alone,
        f"{MORE} more": every["more"],
        "x one core": alone / here,
        "x loop": loop * scenes / here,
        "files' share": one["files"],
        "peak MB, a tenth": few["peak"],
        "peak MB": every["peak"],
        "25,000 Vistas, min": here / scenes / (height * width / 1e6) * VISTAS[0] * VISTAS[1] / 60,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--child", nargs=3, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        folder, scenes, cores = options.child
        print(json.dumps(child(Path(folder).resolve(), int(scenes), int(cores))))
        return
    if shutil.disk_usage(".").free < 10e9:
        raise SystemExit("bench.data needs 10 GB of disk")
    rows = [row(options.scenes, 720, 1280), row(options.scenes // 10, 3000, 4000)]
    print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".2f"))


if __name__ == "__main__":
    with reported("bench.data", resumes=False):
        main()
