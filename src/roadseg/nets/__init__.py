"""The networks, by name. Each takes the number of classes and starts from random weights.

Input: float32 B3HW, RGB, normalised; any height and width from 64 up, of some from 32 (each file says so).
Training norms a batch by its own statistics, which one position of one image has not: a scene alone trains where one
side is above 32, of DDRNet and PIDNet, whose coarsest map is at 1/64, above 64; else torch raises its ValueError. Two
scenes of any size do.
Output: float logits BCHW at exactly the input's height and width. In training mode a list of logits not enlarged yet:
the main ones first, which losses enlarge as they go over them, then those of the training heads, if the network has
any, whose losses count `train.aux_weight` each. The latter are at 1/8 of the input, rounded up, and stay so: bringing
them to full size made a training step of Fast-SCNN up to 60 % longer on a CPU.
"""

from collections.abc import Callable, Iterable
from functools import partial

from torch import nn

from roadseg.errors import UserError
from roadseg.nets.bisenetv1 import BiSeNetV1
from roadseg.nets.bisenetv2 import BiSeNetV2
from roadseg.nets.ddrnet import DDRNet23, DDRNet23Slim
from roadseg.nets.deeplab import DeepLabV3, DeepLabV3Plus
from roadseg.nets.enet import ENet
from roadseg.nets.fastscnn import FastSCNN
from roadseg.nets.fcn import FCN
from roadseg.nets.linknet import LinkNet
from roadseg.nets.lmffnet import LMFFNet
from roadseg.nets.pidnet import PIDNetS
from roadseg.nets.ppliteseg import PPLiteSeg, ppliteseg_b
from roadseg.nets.pspnet import PSPNet
from roadseg.nets.regseg import RegSeg
from roadseg.nets.segformer import SegFormer
from roadseg.nets.stdc import STDCSeg, stdc2seg
from roadseg.nets.unet import UNet
from roadseg.nets.yolo import YOLO, yolo_s

NETS: dict[str, Callable[[int], nn.Module]] = {
    "enet": ENet,
    "fastscnn": FastSCNN,
    "bisenetv1": BiSeNetV1,
    "bisenetv2": BiSeNetV2,
    "stdc1": STDCSeg,
    "stdc2": stdc2seg,
    "ppliteseg_t": PPLiteSeg,
    "ppliteseg_b": ppliteseg_b,
    "ddrnet23slim": DDRNet23Slim,
    "ddrnet23": DDRNet23,
    "pidnet_s": PIDNetS,
    "regseg": RegSeg,
    "lmffnet": LMFFNet,
    "yolo_n": YOLO,
    "yolo_s": yolo_s,
    "fcn": FCN,
    "unet": UNet,
    "linknet_r18": partial(LinkNet, depth=18),
    "linknet_r34": partial(LinkNet, depth=34),
    "deeplabv3_r18": partial(DeepLabV3, depth=18),
    "deeplabv3_r50": partial(DeepLabV3, depth=50),
    "deeplabv3_r101": partial(DeepLabV3, depth=101),
    "deeplabv3plus_r18": partial(DeepLabV3Plus, depth=18, output_stride=16),
    "deeplabv3plus_r50": partial(DeepLabV3Plus, depth=50),
    "deeplabv3plus_r101": partial(DeepLabV3Plus, depth=101),
    "pspnet_r18": partial(PSPNet, depth=18),
    "pspnet_r50": partial(PSPNet, depth=50),
    "pspnet_r101": partial(PSPNet, depth=101),
    "segformer_b0": partial(SegFormer, encoder="b0"),
    "segformer_b1": partial(SegFormer, encoder="b1"),
    "segformer_b2": partial(SegFormer, encoder="b2"),
    "segformer_b3": partial(SegFormer, encoder="b3"),
    "segformer_b4": partial(SegFormer, encoder="b4"),
    "segformer_b5": partial(SegFormer, encoder="b5"),
    "segformer_r18": partial(SegFormer, encoder="r18"),
    "segformer_r50": partial(SegFormer, encoder="r50"),
    "segformer_swin_t": partial(SegFormer, encoder="swin_t"),
}


def module_of(name: str) -> str:
    """The module that a network is written in."""
    build = NETS[name]
    return (build.func if isinstance(build, partial) else build).__module__


def known(names: Iterable[str]) -> None:
    """Raises UserError on the first of `names` that is no network's, and lists those that there are."""
    for name in names:
        if name not in NETS:
            raise UserError(f"there is no network {name!r}: choose one of {', '.join(NETS)}")


def build(name: str, classes: int) -> nn.Module:
    """A freshly initialised network, in training mode, from torch's global random state. Raises UserError on an unknown
    `name`."""
    known([name])
    return NETS[name](classes)
