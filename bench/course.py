"""One recipe, trained and scored apart from the project's own line: what bench.clock and bench.study share; of others
the workspace."""

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from torch import nn

from roadseg import checkpoint, config, engine
from roadseg.engine import Views
from roadseg.metrics import Scores, scores
from roadseg.scenes import index, sources
from roadseg.scenes.pack import pack
from roadseg.stages import fetch, profile, remap, train
from roadseg.stages.training import Course, Recipe
from roadseg.tracking.null import NullRun


@dataclass(frozen=True)
class Trained:
    """What came of a training."""

    recipe: Recipe
    net: nn.Module
    """With the averaged weights."""
    curve: pd.DataFrame
    steps: int
    seconds: float
    """By the wall clock: decoding, training and validations."""
    scores: dict[str, Scores]
    """Of each split asked for, at the labels' own resolution."""


@contextmanager
def workspace(mirror: Path) -> Iterator[None]:
    """An empty project to run stages in, whose downloads come from `mirror`."""
    mirror = mirror.resolve()
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        os.environ |= {"ROADSEG_HOME": folder, "ROADSEG_MIRROR": str(mirror)}
        yield


def prepare(text: str) -> config.Config:
    """The settings of a params.yaml's text, written there, with its scenes fetched, remapped and profiled."""
    Path("params.yaml").write_text(text, encoding="utf-8")
    given = config.read()
    for source in given.data.sources:
        fetch.run(given, source)
        remap.run(given, source)
    profile.run(given)
    return given


def trained(given: config.Config, splits: Sequence[str] = ("val", "test")) -> Trained:
    """Trains the first network, loss and crop with the middle of the learning rates, and reads each split once."""
    search = given.search
    recipe = Recipe(search.networks[0], search.losses[0], search.learning_rate.middle, search.crops[0])
    begun = time.perf_counter()
    course = Course.open(given)
    path = train.train(given, course, recipe, NullRun())
    seconds = time.perf_counter() - begun
    saved = checkpoint.load(path)
    weights = train.kept(given, saved).weights
    net, _ = course.network(recipe, given.seed)
    net.load_state_dict(weights)
    net.to(course.device)
    path.unlink()  # the next one asked for is trained, not found
    found = {split: scored(given, net, split) for split in splits}
    steps = saved["training"]["step"]
    return Trained(recipe, net, pd.DataFrame(saved["curve"]), steps, seconds, found)


def scored(given: config.Config, net: nn.Module, split: str, views: Views | None = None) -> Scores:
    """The network's scores on a split, at the labels' own resolution; each scene with one view where none are given."""
    scenes = pack(index.labelled(given, split), long_side=given.train.long_side)
    classes, device = len(sources.space_of(given).classes), next(net.parameters()).device
    matrices = engine.evaluate(net, scenes, classes=classes, device=device, progress=split, views=views or Views())
    return scores(matrices.sum(axis=0))
