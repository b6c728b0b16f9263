"""How good a network becomes in how much time: one recipe, from packed scenes to the last step, by the wall clock.

    python -m bench.clock params/camvid30.yaml MIRROR [--no-test]

PARAMS is a whole params.yaml, of which the first network, loss and crop and the middle of the learning rates are taken.
Fetch, remap and profile come before the clock starts; decoding, training and validations are on it. The test split is
scored after it, at one time: each scene with one view, as a deployed model would, and with `VIEWS`; with --no-test it
is left unread, and the validation split alone is scored so. Leaves curves.csv, curves.png and clock.json in
.state/bench/clock/; a killed run starts anew.
"""

import argparse
import json
from pathlib import Path

import torch

from bench import course
from roadseg import engine, figures, paths
from roadseg.deploy import device
from roadseg.engine import Views
from roadseg.errors import reported
from roadseg.scenes import sources

VIEWS = Views(scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75), flip=True)
"""Those of most published scores with several views (Chen 2017, section 4.1)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("params", type=Path)
    parser.add_argument("mirror", type=Path)
    parser.add_argument("--no-test", action="store_true", help="for another machine or code: a recipe is tested once")
    options = parser.parse_args()
    text, out = options.params.read_text(encoding="utf-8"), paths.state("bench", "clock").resolve()
    out.mkdir(exist_ok=True)
    with course.workspace(options.mirror):
        given = course.prepare(text)
        made = course.trained(given, ["val"] if options.no_test else ["val", "test"])
        classes = sources.space_of(given).classes
        of_views = {split: course.scored(given, made.net, split, VIEWS).miou for split in made.scores}
    made.curve.to_csv(out / "curves.csv", index=False)
    figures.curves(made.curve).savefig(out / "curves.png")
    result = {
        "recipe": made.recipe.name,
        "minutes": round(made.seconds / 60, 2),
        "steps": made.steps,
        "seed": given.seed,
        **{f"{split}_miou": round(found.miou, 4) for split, found in made.scores.items()},
        **{f"{split}_miou_of_views": round(miou, 4) for split, miou in of_views.items()},
        **{f"{split}_iou": dict(zip(classes, found.iou, strict=True)) for split, found in made.scores.items()},
        "device": device.fingerprint(engine.default_device()),
        "torch": torch.__version__,
    }
    (out / "clock.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    with reported("bench.clock", resumes=False):
        main()
