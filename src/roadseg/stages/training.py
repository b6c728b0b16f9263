"""One recipe, trained: what the search's trials, the finalists and the benches share.

A `Recipe` is what the search chooses; a `Course` is what every recipe of a run meets: the packed scenes, the class
weights, the budget's unit. Trials differ by recipe alone, so they can be compared.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from roadseg import closure, distributed, engine, kernels, losses, nets, paths, schedules
from roadseg.config import Config
from roadseg.engine import Teacher, Training
from roadseg.engine.precision import resolve
from roadseg.errors import UserError
from roadseg.labels import LabelSpace
from roadseg.metrics import Scores, scores
from roadseg.nets import backbones, initial
from roadseg.scenes import draws, index, sources
from roadseg.scenes.augment import MEAN, STD, Augmentation, crop_size
from roadseg.scenes.batches import Batches
from roadseg.scenes.pack import Pack, pack
from roadseg.scenes.plan import Plan, plan
from roadseg.stages import profiled, teacher

if TYPE_CHECKING:  # a training's key is a digest of what it imports: records and progress are no part of it
    from roadseg.stages.progress import Show
    from roadseg.tracking import Run


WITHOUT_EFFECT = {"workers", "cache_gb", "keep", "skip_unreadable"}
"""Settings of `train` that change nothing about a training, but for the scenes that are left out, which `key` has: a
resumed one may have others."""


LONGEST = 80
"""Characters of a loss in a recipe's name: a folder has it, and a file system takes 255."""


@dataclass(frozen=True)
class Recipe:
    """What the search chooses."""

    network: str
    loss: str
    learning_rate: float
    """Peak learning rate of train.optimizer."""
    crop: float
    """Share of the scene's height and width."""

    @property
    def name(self) -> str:
        """For people, files and tables; recipes whose learning rates agree in two digits share it."""
        loss = re.sub(r"[^\w.]+", "-", self.loss).strip("-")  # a sum of losses has blanks and stars
        if len(loss) > LONGEST:
            loss = f"{loss[:LONGEST]}-{hashlib.sha256(loss.encode()).hexdigest()[:6]}"
        return f"{self.network}-{loss}-{self.learning_rate:.2g}-{self.crop:g}"


TICKS = 8
"""How often the live line moves between two validations."""


@dataclass(frozen=True)
class Validation:
    """A training, looked at on the way."""

    report: engine.Report
    loss: float
    """Mean since the validation before."""
    scores: Scores
    """Of the averaged weights on the validation split."""


@dataclass(frozen=True)
class Course:
    """The scenes, weights and settings that every recipe of a run meets."""

    config: Config
    space: LabelSpace
    train: Pack
    val: Pack
    weights: dict[str, list[float]]
    """Class weights by name; see roadseg.losses.build."""
    draws: tuple[float, ...]
    """How often each training scene is drawn, against 1."""
    teacher: Teacher | None
    device: str

    @classmethod
    def open(cls, config: Config) -> "Course":
        """Packs the training and validation scenes (cached) and reads the class weights of the profile. UserError
        where there is none."""
        space = sources.space_of(config)
        weights = profiled.weights(space)
        long_side, limit = config.train.long_side, config.train.cache_gb
        scenes = index.labelled(config, "train")
        often = np.array(draws.by_source(config))
        if config.train.oversample and scenes:
            often = draws.by_classes(often, profiled.shows(scenes, space.classes), config.train.oversample)
        skip = config.train.skip_unreadable
        train = pack(scenes, long_side=long_side, own_labels=False, skip_unreadable=skip, limit_gb=limit)
        for line in train.left_out:
            print(f"left out: {line}")
        return cls(
            config=config,
            space=space,
            train=train,
            val=pack(index.labelled(config, "val"), long_side=long_side, limit_gb=limit),
            weights=weights,
            draws=tuple(often[train.places].tolist()),
            teacher=teacher.load(config.train.distil, space) if config.train.distil else None,
            device=engine.default_device(),
        )

    def crop(self, share: float) -> tuple[int, int]:
        """Crop height and width in pixels: `share` of the commonest scene's."""
        return crop_size(*self.train.size, share)

    def record(self, run: "Run") -> None:
        """Notes the scenes on an MLflow run, as its data set."""
        scenes = paths.PROFILE / "scenes.csv"
        digest = hashlib.sha256(scenes.read_bytes()).hexdigest()[:12]
        run.dataset(pd.read_csv(scenes), "+".join(self.config.data.trained), digest)

    def network(self, recipe: Recipe, seed: int) -> tuple[nn.Module, list[str]]:
        """The seeded network with the weights that it starts from, and a line for each weight that was not loaded."""
        torch.manual_seed(seed)
        net = nets.build(recipe.network, len(self.space.classes))
        return net, initial.load(net, self.config.train.initial, self.space.classes)

    def plan(self, crop: float, epochs: float) -> Plan:
        """What `epochs` of crops of that share see, step by step. UserError where mixup has nothing to mix."""
        pixels, processes = int(epochs * self.train.pixels), self.config.train.processes
        of_step = self.config.train.batch * math.prod(self.train.size)
        made = plan(pixels, of_step, self.crop(crop), self.config.train.phases, processes)
        if self.config.train.mixup and min(phase.crops for phase in made.phases) < 2 * processes:
            raise UserError(
                f"params.yaml: train.mixup: a step has one crop (share {crop:g}) of each process, and mixup "
                "needs two: raise train.batch, lower search.crops, or set it to 0"
            )
        return made

    def begin(self, recipe: Recipe, *, epochs: float, seed: int) -> Training:
        """A training at step 0: the seeded network, its optimizer, its schedule over `epochs`."""
        settings = self.config.train
        net, _ = self.network(recipe, seed)
        return engine.start(
            net,
            loss=losses.build(recipe.loss, self.weights, settings.class_weights),
            learning_rate=recipe.learning_rate,
            weight_decay=settings.weight_decay,
            schedule=schedules.build(settings.schedule),
            optimizer=settings.optimizer,
            encoder=[weight for backbone in backbones.inside(net).values() for weight in backbone.parameters()],
            encoder_rate=settings.encoder_rate,
            mixup=settings.mixup,
            clip=settings.clip,
            parts=settings.parts,
            compiled=settings.compile,
            ema=settings.ema,
            precision=settings.precision,
            channels_last=settings.channels_last,
            device=self.device,
            total_steps=self.plan(recipe.crop, epochs).steps,
            aux_weight=settings.aux_weight,
            teacher=self.teacher,
            seed=seed,
        )

    def fit(self, training: Training, recipe: Recipe, *, epochs: float, reports: int) -> Iterator[engine.Report]:
        """Trains from where `training`, begun for so many epochs, is to its last step; `reports` reports in all, at
        equal distances in steps."""
        settings = self.config.train
        batches = Batches(
            self.train,
            self.plan(recipe.crop, epochs),
            seed=training.seed,
            draws=self.draws,
            augmentation=Augmentation(settings.rotation, settings.zoom, settings.colour),
            max_share=settings.max_share,
            part=(distributed.rank(), distributed.size()),
        )
        yield from engine.fit(
            training,
            batches,
            report_every=training.total_steps / reports,
            workers=settings.workers,
            setbacks=settings.setbacks,
        )

    def validated(
        self, training: Training, recipe: Recipe, *, epochs: float, times: int, show: "Show", miou: float | None = None
    ) -> Iterator[Validation]:
        """As `fit`, with so many validations in all, and `show` told how far it is; `miou`: what it shows until the
        first. A training is saved at a validation, and goes on from there to the next."""
        done = training.step * times // training.total_steps
        begun = before = training.step
        loss = 0.0
        for report in self.fit(training, recipe, epochs=epochs, reports=times * TICKS):
            loss += report.loss * (report.step - before)
            before = report.step
            if (due := report.step * times // report.total_steps) == done:
                show(report, miou)
                continue
            found, done = self.score(training), due
            miou = found.miou
            show(report, miou)
            yield Validation(report, loss / (report.step - begun), found)
            begun, loss = report.step, 0.0

    def score(self, training: Training) -> Scores:
        """Scores of the averaged weights on the validation split, at the labels' own resolution."""
        matrices = engine.evaluate(training.ema.net, self.val, classes=len(self.space.classes), device=self.device)
        return scores(matrices.sum(axis=0))


LIBRARIES = ("torch", "albumentations", "numpy", "opencv-python-headless", "pillow")
"""By which a training's numbers may change with their version."""


def key(course: Course, networks: Sequence[str], **protocol: Any) -> str:
    """Names the whole input of training these networks: scenes, weights, settings, code, versions and what kind of
    device computes in which number format, as 12 hex digits.

    Code counts by `closure.digest`, so that a changed comment or docstring names the same training.
    """
    config = course.config
    profile = [paths.PROFILE / "scenes.csv", paths.PROFILE / "weights.json"]
    elsewhere = {"epochs", "patience", "validate_every", "initial"}  # in `protocol`, or below
    exclude = dict.fromkeys(elsewhere | WITHOUT_EFFECT, True) | {"distil": {"teacher"}}
    settings = config.train.model_dump(exclude=exclude)
    parts = [hashlib.sha256(file.read_bytes()).hexdigest() for file in profile]
    parts += [closure.digest([__name__]), *map(version, LIBRARIES), json.dumps(settings, sort_keys=True)]
    in_kernels = course.device == "cpu" and kernels.compiled() is not None  # torch's own are rounded otherwise
    parts += [course.device, str(resolve(config.train.precision, course.device)), str(in_kernels)]
    parts += course.train.left_out
    parts += [json.dumps([config.data.weights.get(name, 1.0) for name in config.data.trained])]
    parts += [initial.digest(config.train.initial), teacher.digest(config.train.distil), initial.library(networks)]
    parts += [str(config.seed), json.dumps(protocol, sort_keys=True)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def settings(config: Config, recipe: Recipe, *, epochs: float) -> dict[str, Any]:
    """Everything that a training is set to, flat: what a run records as its parameters."""
    shared = config.train.model_dump(exclude={"epochs"} | WITHOUT_EFFECT)  # MLflow lets no resumed run change them
    return {**asdict(recipe), **shared, "epochs": epochs, "seed": config.seed}


def latencies(table: pd.DataFrame, recipe: Recipe) -> dict[str, float]:
    """p95 (ms) of the recipe's network in each form of the latency table, named as evaluate names its own."""
    rows = table[table["network"] == recipe.network]
    forms = zip(rows["engine"], rows["precision"], rows["p95_ms"], strict=True)
    return {f"p95_ms_{engine}_{precision}": float(p95) for engine, precision, p95 in forms}


def describe(
    recipe: Recipe, course: Course, *, key: str, epochs: float, kept_epoch: float, val: Scores
) -> dict[str, Any]:
    """The recipe.json that travels with the weights: everything that export and the model card say about training."""
    return {
        **asdict(recipe),
        "name": recipe.name,
        "training": key,
        "space": course.space.name,
        "classes": list(course.space.classes),
        "crop_pixels": list(course.crop(recipe.crop)),
        "epochs": epochs,
        "kept_epoch": kept_epoch,
        "schedule": course.config.train.schedule,
        "seed": course.config.seed,
        "mean": list(MEAN),
        "std": list(STD),
        "sources": list(course.config.data.trained),
        "initial": course.config.train.initial,
        "not_loaded": course.network(recipe, course.config.seed)[1],
        "distil": course.config.train.distil and course.config.train.distil.model_dump(),
        "val_miou": val.miou,
        "train_scenes": len(course.train),
    }
