"""Classification networks as encoders, from transformers: ResNet, Swin-T and Mix Transformer (MiT).

He et al. 2015, "Deep Residual Learning for Image Recognition", arXiv 1512.03385; Liu et al. 2021, "Swin Transformer:
Hierarchical Vision Transformer using Shifted Windows", arXiv 2103.14030; Xie et al. 2021, "SegFormer: Simple and
Efficient Design for Semantic Segmentation with Transformers", arXiv 2105.15203 (MiT). ResNet's stride is in the 3x3
convolution of a bottleneck, not in the first 1x1 as in the paper: so the published weights were trained.

All start from random weights, by transformers' own initialisation; `load_imagenet` puts the published ones in.
transformers is imported when a backbone is made: it takes a second.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from roadseg.errors import UserError

RESNETS = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
}
"""Kind of block and blocks in each stage: He 2015, table 1."""

MITS = (
    ((32, 64, 160, 256), (2, 2, 2, 2)),
    ((64, 128, 320, 512), (2, 2, 2, 2)),
    ((64, 128, 320, 512), (3, 4, 6, 3)),
    ((64, 128, 320, 512), (3, 4, 18, 3)),
    ((64, 128, 320, 512), (3, 8, 27, 3)),
    ((64, 128, 320, 512), (3, 6, 40, 3)),
)
"""Channels and blocks of each stage of B0 to B5: Xie 2021, table 6."""

STAGES = ["stage1", "stage2", "stage3", "stage4"]

FILES = ("model.safetensors", "pytorch_model.bin")
"""What weights are published in; the first is taken where there are both."""


class Backbone(nn.Module):
    """Float32 B3HW, normalised, any height and width from 32 up -> the four stages' features, BCHW at 1/4, 1/8, 1/16
    and 1/32 of the input, rounded up.

    `channels`: those of the four. `hub`: the name under which the hub has the ImageNet weights.
    """

    def __init__(self, model: nn.Module, channels: tuple[int, ...], hub: str) -> None:
        super().__init__()
        self.model: Any = model  # a transformers model: its attributes are not typed
        self.channels = channels
        self.hub = hub

    def forward(self, image: Tensor) -> list[Tensor]:
        return list(self.model(image).feature_maps)


class MixTransformer(Backbone):
    """MiT, of which transformers has no backbone class: its stages' outputs are the hidden states."""

    def forward(self, image: Tensor) -> list[Tensor]:
        return list(self.model(image, output_hidden_states=True).hidden_states)


def inside(net: nn.Module) -> dict[str, Backbone]:
    """The backbones of a network, by their names in it."""
    return {name: module for name, module in net.named_modules() if isinstance(module, Backbone)}


def resnet(depth: int, output_stride: int = 32, *, stem: bool = False) -> Backbone:
    """ResNet of `depth` 18, 34, 50 or 101. With `output_stride` 16 or 8 the stages after it keep its resolution and are
    dilated instead. `stem`: its pooled features, 64 at 1/4, come before those of the four stages."""
    if depth not in RESNETS or output_stride not in (8, 16, 32):
        raise ValueError(f"depth must be in {[*RESNETS]} and output stride in [8, 16, 32]: {depth}, {output_stride}")
    from transformers import ResNetBackbone, ResNetConfig

    kind, depths = RESNETS[depth]
    channels = (64, 128, 256, 512) if kind == "basic" else (256, 512, 1024, 2048)
    outputs = ["stem", *STAGES] if stem else STAGES
    sizes: dict[str, Any] = {"depths": list(depths), "hidden_sizes": list(channels), "out_features": outputs}
    config = ResNetConfig(layer_type=kind, **sizes)
    model = ResNetBackbone(config)
    _dilate(model.encoder.stages, output_stride)
    return Backbone(model, (64, *channels) if stem else channels, f"microsoft/resnet-{depth}")


def _dilate(stages: nn.ModuleList, output_stride: int) -> None:
    """Takes the strides beyond `output_stride` out of a ResNet's stages, in place.

    Every 3x3 convolution after a stride that went is dilated by it, so that each weight still meets what it met before:
    the features at every 2nd, 4th, ... position are those of the network with strides. torchvision's
    `replace_stride_with_dilation` does the same to bottlenecks and has no dilated basic block.
    """
    stride, dilation = 2, 1
    for stage in stages:
        stride *= 2
        before = dilation
        if stride > output_stride:
            dilation *= 2
        for conv in stage.modules():
            if not isinstance(conv, nn.Conv2d):
                continue
            reach = dilation
            if stride > output_stride and conv.stride == (2, 2):
                conv.stride, reach = (1, 1), before
            if conv.kernel_size == (3, 3):
                conv.dilation = conv.padding = (reach, reach)


def swin_tiny() -> Backbone:
    """Swin-T: windows of 7, channels 96 to 768. The four outputs are layer-normed, as the authors do for
    segmentation; these norms are not part of the ImageNet weights."""
    from transformers import SwinBackbone, SwinConfig

    outputs: dict[str, Any] = {"out_features": STAGES}
    model: Any = SwinBackbone(SwinConfig(**outputs))
    model.swin.layernorm = nn.Identity()  # the classifier's: nothing here reads it, no gradient would reach it
    return Backbone(model, (96, 192, 384, 768), "microsoft/swin-tiny-patch4-window7-224")


def mit(size: int) -> Backbone:
    """MiT-B0 to MiT-B5, by `size` 0 to 5."""
    if size not in range(len(MITS)):
        raise ValueError(f"MiT's size must be in 0 to {len(MITS) - 1}: {size}")
    from transformers import SegformerConfig, SegformerModel

    channels, depths = MITS[size]
    config = SegformerConfig(hidden_sizes=list(channels), depths=list(depths))
    return MixTransformer(SegformerModel(config), channels, f"nvidia/mit-b{size}")


def library() -> str:
    """The package that the backbones are written in, with its version: another version may compute something else."""
    return f"transformers {version('transformers')}"


def load_imagenet(backbone: Backbone, folder: Path | None = None) -> list[str]:
    """Puts published weights into `backbone`, in place, by transformers' own loading code.

    `folder`: holds model.safetensors, as `save_pretrained` writes it; None is the hub, or its cache on this machine. A
    folder that is not there is never looked for on the hub. Returns a line for every weight that was not loaded,
    sorted: those of the backbone that stay as they are, and those of the file that have no place here (an ImageNet
    classifier's). Raises UserError where there is no such file, it is damaged, or fewer than half of the backbone's
    weights are in it.
    """
    hub = backbone.hub
    if folder is not None and not files(folder):
        what = f"has neither {' nor '.join(FILES)}" if folder.is_dir() else "is not there"
        raise UserError(f"the folder {folder} {what}: {_advice(hub)}")
    origin = str(folder or hub)
    try:
        with _quiet():
            loaded, info = type(backbone.model).from_pretrained(
                origin,
                config=backbone.model.config,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (SafetensorError, UnpicklingError, EOFError, RuntimeError) as error:
        raise UserError(f"{_file(folder, hub)} is damaged ({_first(error)}): remove it, and {_advice(hub)}") from error
    except OSError as error:
        if folder is not None:
            raise UserError(f"{_file(folder, hub)} cannot be read ({_first(error)}): {_advice(hub)}") from error
        from huggingface_hub import is_offline_mode

        asked = "HF_HUB_OFFLINE keeps it from the hub" if is_offline_mode() else "the hub was not reached"
        raise UserError(f"the weights {hub} are not on this machine, and {asked}: {_advice(hub)}") from error
    stays = dict.fromkeys(info["missing_keys"], "not in the file, stays as it is")
    for name, theirs, ours in info["mismatched_keys"]:
        stays[name] = f"{tuple(theirs)} in the file, {tuple(ours)} here, stays as it is"
    weights, own = loaded.state_dict(), backbone.model.state_dict()
    fits = {name: weight for name, weight in weights.items() if name in own and name not in stays}
    found, sought = counted(own, fits)
    if 2 * found < sought:
        raise UserError(
            f"{found} of {sought} weights of {hub} are in {origin}, fewer than half: it is another network's; "
            f"{_advice(hub)}"
        )
    backbone.model.load_state_dict(fits, strict=False)
    without_place = [*info["unexpected_keys"], *(name for name in weights if name not in own and name not in stays)]
    kept = [f"{name}: {why}" for name, why in stays.items() if name in own]
    return sorted([*kept, *(f"{name}: in the file, has no place here" for name in without_place)])


def counted(own: Mapping[str, Tensor], fits: Mapping[str, Tensor]) -> tuple[int, int]:
    """How many of a network's own weights are among those that fit, and how many it has. A file that holds fewer than
    half is taken for another network's.

    Counted as people count them in a list: by size, one wide classifier or pyramid would outvote a whole backbone that
    fits. Scalars do not count: every batch norm has one, which fits whatever is of its name.
    """
    sought = [name for name, weight in own.items() if weight.ndim]
    return sum(name in fits for name in sought), len(sought)


def files(folder: Path) -> list[Path]:
    """Every file of published weights in `folder`, sorted; large ones come in parts."""
    patterns = (f"{Path(name).stem}*{Path(name).suffix}" for name in FILES)
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


def _first(error: BaseException) -> str:
    """The first sentence of what a library said."""
    return " ".join(str(error).split()).split(". ")[0].rstrip(".") or type(error).__name__


def _advice(hub: str) -> str:
    name = hub.rsplit("/", 1)[-1]
    return (
        f"where there is a network run `hf download {hub} --local-dir FOLDER/{name}` (https://huggingface.co/{hub}), "
        "copy FOLDER here, and set train.initial: imagenet:FOLDER"
    )


def _file(folder: Path | None, hub: str) -> Path:
    """The file that transformers takes the weights from: in `folder`, or in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    places = [folder / name if folder else try_to_load_from_cache(hub, name) for name in FILES]
    return next((Path(place) for place in places if isinstance(place, str | Path) and Path(place).exists()), Path(hub))


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers prints a table of what it did not load and a progress bar; the caller gets the list instead."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
