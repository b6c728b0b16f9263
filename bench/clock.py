"""How good a network becomes in how much time: one recipe, from packed scenes to the last step, by the wall clock.

    python -m bench.clock params/camvid30.yaml MIRROR

PARAMS is a whole params.yaml, of which the first network, loss and crop and the middle of the learning rates are taken.
Fetch, remap and profile come before the clock starts; decoding, training and validations are on it. The test split is
read once, after it. Leaves curves.csv, curves.png and clock.json in .state/bench/clock/; a killed run starts anew.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch

from roadseg import checkpoint, config, engine, figures, paths
from roadseg.deploy import device
from roadseg.metrics import scores
from roadseg.scenes import index
from roadseg.scenes.pack import pack
from roadseg.stages import fetch, profile, remap, train
from roadseg.stages.training import Course, Recipe
from roadseg.tracking.null import NullRun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("params", type=Path)
    parser.add_argument("mirror", type=Path)
    options = parser.parse_args()
    text, mirror = options.params.read_text(encoding="utf-8"), options.mirror.resolve()
    out = paths.state("bench", "clock").resolve()
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ |= {"ROADSEG_HOME": folder, "ROADSEG_MIRROR": str(mirror)}
        Path("params.yaml").write_text(text, encoding="utf-8")
        given = config.read()
        for source in given.data.sources:
            fetch.run(given, source)
            remap.run(given, source)
        profile.run(given)
        search = given.search
        rate = (search.learning_rate.low * search.learning_rate.high) ** 0.5
        recipe = Recipe(search.networks[0], search.losses[0], rate, search.crops[0])

        begun = time.perf_counter()
        course = Course.open(given)
        path = train.train(given, course, recipe, NullRun())
        seconds = time.perf_counter() - begun

        saved = checkpoint.load(path)
        learner = course.begin(recipe, epochs=given.train.epochs, seed=given.seed)
        learner.load(saved["training"])
        splits = {
            split: scores(
                engine.evaluate(
                    learner.ema.net,
                    pack(index.labelled(given, split)),
                    classes=len(course.space.classes),
                    device=course.device,
                    progress=split,
                ).sum(axis=0)
            )
            for split in ("val", "test")
        }
        curve = pd.DataFrame(saved["curve"])
        os.chdir("/")
    curve.to_csv(out / "curves.csv", index=False)
    figures.curves(curve).savefig(out / "curves.png")
    result = {
        "recipe": recipe.name,
        "minutes": round(seconds / 60, 2),
        "steps": saved["training"]["step"],
        "seed": given.seed,
        **{f"{split}_miou": round(found.miou, 4) for split, found in splits.items()},
        **{f"{split}_iou": dict(zip(course.space.classes, found.iou, strict=True)) for split, found in splits.items()},
        "device": device.fingerprint(course.device),
        "torch": torch.__version__,
    }
    (out / "clock.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
