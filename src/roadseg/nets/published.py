"""What was published of each network: its paper, and the parameters and multiply-adds that a named source counts.

Sources: A is PaddleSeg's model zoo overview (19 classes, 512x1024), B the README of RDRNet (1024x2048), C the README of
zh320's realtime-semantic-segmentation-pytorch (parameters), D Ultralytics' documentation of YOLO26-sem (1024x2048,
fused). Each of the first two calls multiply-adds FLOPs. Counts are in millions and in billions.
"""

from dataclasses import dataclass

A, B = (512, 1024), (1024, 2048)


@dataclass(frozen=True)
class Published:
    paper: str
    """Authors and year, arXiv's number."""
    parameters: float | None = None
    """Millions."""
    multiply_adds: float | None = None
    """Billions, of one image of `size`."""
    size: tuple[int, int] | None = None
    """Height, width of the input that `multiply_adds` is of."""
    source: str = ""
    """Of the two counts."""
    differs: str = ""
    """Why ours are further away than 3 and 5 per cent, where they are."""


TWICE = (
    "PaddleSeg's code registers the backbone's layers under two names, and its counter appears to visit both: ours "
    "with the backbone counted once more is within 0.4 % of it (tests/test_nets_stdc.py)."
)
OTHER_DECODER = (
    "C's code has another decoder: a pyramid 256 wide, two fusions with 1x1 projections, one layer as head. The "
    "authors' has three fusions with 3x3 projections, as here; tests/test_nets_ppliteseg.py rebuilds C's count."
)

ATTENTION = (
    "A counts layers alone; torch's counter has the two products of attention as well. Without them ours are within "
    "1 % (tests/test_nets_segformer.py)."
)
EXTRA_LAYER = (
    "theirs has a 3x3 convolution of 256 channels and its norm (590,336 parameters) after ASPP; the paper has none."
)
SECOND_STAGE = "theirs pools the second stage's features; the paper the last one's."
WIDER = "its last 3x3 convolution has 1024 channels, twice the paper's, and it counts the training head."

PUBLISHED: dict[str, Published] = {
    "enet": Published(
        "Paszke et al. 2016, 1606.02147",
        0.37,
        3.83 / 2,
        (360, 640),
        "C; operations in the paper",
        "the paper counts all operations, 3.83 G; the counter leaves out PReLU, norms and pooling, 5 % of them here.",
    ),
    "fastscnn": Published("Poudel et al. 2019, 1902.04502", 1.11, None, None, "the paper"),
    "bisenetv1": Published("Yu et al. 2018, 1808.00897", 13.3, 118.0, B, "B"),
    "bisenetv2": Published("Yu et al. 2021, 2004.02147", 2.33, 16.14, A, "A"),
    "stdc1": Published("Fan et al. 2021, 2104.13188", 8.29, 24.83, A, "A", TWICE),
    "stdc2": Published("Fan et al. 2021, 2104.13188", 12.33, 38.05, A, "A", TWICE),
    "ppliteseg_t": Published("Peng et al. 2022, 2204.02681", 6.33, None, None, "C", OTHER_DECODER),
    "ppliteseg_b": Published("Peng et al. 2022, 2204.02681", 10.56, None, None, "C", OTHER_DECODER),
    "ddrnet23slim": Published("Hong et al. 2021, 2101.06085", 5.7, 36.3, B, "B"),
    "ddrnet23": Published("Hong et al. 2021, 2101.06085", 20.3, 143.0, B, "B"),
    "pidnet_s": Published("Xu et al. 2023, 2206.02066", 7.7, 47.3, B, "B"),
    "linknet_r18": Published("Chaurasia and Culurciello 2017, 1707.03718", 11.5, None, None, "the paper"),
    "linknet_r34": Published("Chaurasia and Culurciello 2017, 1707.03718"),
    "unet": Published("Ronneberger et al. 2015, 1505.04597", 13.41, 253.75, A, "A, bilinear form"),
    "fcn": Published("a plain encoder-decoder, after Badrinarayanan et al. 2017, 1511.00561"),
    "deeplabv3_r18": Published(
        "Chen et al. 2017, 1706.05587", 15.90, None, None, "segmentation-models-pytorch", EXTRA_LAYER
    ),
    "deeplabv3_r50": Published("Chen et al. 2017, 1706.05587"),
    "deeplabv3_r101": Published("Chen et al. 2017, 1706.05587", 58.17, 481.00, A, "A"),
    "deeplabv3plus_r18": Published("Chen et al. 2018, 1802.02611", 12.33, None, None, "segmentation-models-pytorch"),
    "deeplabv3plus_r50": Published("Chen et al. 2018, 1802.02611", 26.79, 228.44, A, "A"),
    "deeplabv3plus_r101": Published("Chen et al. 2018, 1802.02611"),
    "pspnet_r18": Published(
        "Zhao et al. 2017, 1612.01105", 11.41, None, None, "segmentation-models-pytorch", SECOND_STAGE
    ),
    "pspnet_r50": Published("Zhao et al. 2017, 1612.01105"),
    "pspnet_r101": Published("Zhao et al. 2017, 1612.01105", 86.97, 686.89, A, "A", WIDER),
    "segformer_b0": Published("Xie et al. 2021, 2105.15203", 3.72, 13.63, A, "A", ATTENTION),
    "segformer_b1": Published("Xie et al. 2021, 2105.15203", 13.68, 26.55, A, "A", ATTENTION),
    "segformer_b2": Published("Xie et al. 2021, 2105.15203", 27.36, 113.71, A, "A", ATTENTION),
    "segformer_b3": Published("Xie et al. 2021, 2105.15203", 47.24, 142.97, A, "A", ATTENTION),
    "segformer_b4": Published("Xie et al. 2021, 2105.15203", 64.01, 171.05, A, "A", ATTENTION),
    "segformer_b5": Published("Xie et al. 2021, 2105.15203", 84.61, 199.68, A, "A", ATTENTION),
    "segformer_r18": Published("Xie et al. 2021, 2105.15203, on He et al. 2016, 1512.03385"),
    "segformer_r50": Published("Xie et al. 2021, 2105.15203, on He et al. 2016, 1512.03385"),
    "segformer_swin_t": Published("Xie et al. 2021, 2105.15203, on Liu et al. 2021, 2103.14030"),
    "yolo_n": Published("Wang et al. 2020, 1911.11929; Liu et al. 2018, 1803.01534", 1.6, 22.7 / 2, B, "D"),
    "yolo_s": Published("Wang et al. 2020, 1911.11929; Liu et al. 2018, 1803.01534", 6.5, 88.8 / 2, B, "D"),
    "regseg": Published("Gao 2021, 2111.09957", 3.34, None, None, "C"),
}
