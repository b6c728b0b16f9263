"""What was published of each network: its paper, and the parameters and multiply-adds that a named source counts.

Sources: A is PaddleSeg's model zoo overview (19 classes, 512x1024), B the README of RDRNet (1024x2048), C the README of
zh320's realtime-semantic-segmentation-pytorch (parameters), D Ultralytics' documentation of YOLO26-sem (1024x2048,
fused). Each of the first two calls multiply-adds FLOPs. Counts are in millions and in billions.

A's are by paddle.flops (paddle/hapi/dynamic_flops.py), which counts more than torch's counter: one operation for each
number that a convolution with a bias gives, two for each that a norm gives; and running statistics are parameters.
"""

from dataclasses import dataclass

A, B = (512, 1024), (1024, 2048)


@dataclass(frozen=True)
class Published:
    paper: str
    """Authors and year, arXiv's number or the DOI."""
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
    note: str = ""
    """What else must be known of the two counts."""


ALL_OPERATIONS = (
    "the paper counts operations, 3.83 G (as remembered, not read again), halved here. Twice the multiply-adds are "
    "3.622 G; with two operations for each number that a norm gives (0.053), one for a PReLU's (0.026) and for a sum's "
    "(0.017), three for a maximum (0.002) it is 3.721 G (tests/test_nets_enet.py). 0.109 G, 2.9 %, stay unexplained: "
    "the paper says neither its number of classes nor what it counts as an operation."
)
PYRAMID_OF_3X3 = (
    "the parameters are the paper's, the multiply-adds A's, which has 1.44 M parameters. Its pyramid is fused by a 3x3 "
    "convolution where 1x1 makes the paper's count (262,144 parameters and 0.134 G more), its training head at 1/8 is "
    "counted (19,104; 0.156 G), its convolutions have biases besides the norms (1,299; 0.015 G), and Paddle counts two "
    "operations for each number that a norm gives (0.055 G) and running statistics as parameters (23,744): 1.444 M and "
    "2.038 G (tests/test_nets_fastscnn.py)."
)
TWICE = (
    "PaddleSeg's code registers the backbone's layers under two names; paddle.flops hooks a layer once for each, and "
    "what the hooks count adds up. Ours with the backbone counted twice and with two operations for each number that a "
    "norm gives is {:.2f} G, within 0.05 % (tests/test_nets_stdc.py)."
)
OTHER_DECODER = (
    "C's code has another decoder. In million parameters: its pyramid, 256 wide, has {:.3f} (ours {:.3f}); its "
    "two fusions with 1x1 projections and the convolutions between them {:.3f} (ours, as the authors', three with 3x3 "
    "ones, {:.3f}); its head of one layer {:.3f} (ours {:.3f}): {:.3f} fewer (tests/test_nets_ppliteseg.py)."
)
LINEAR = (
    "the published decoder convolves its four enlarged projections side by side, {:.3f} G, which ours need not: the "
    "two layers of a scale are one. A counts layers alone, torch's counter also the two products of attention, {:.2f} "
    "G. As A counts the published form ours are {:.2f} G (tests/test_nets_segformer.py)."
)
EXTRA_LAYER = (
    "theirs has a 3x3 convolution of 256 channels and its norm (590,336 parameters) after ASPP; the paper has none. "
    "With it ours is 15.90 M."
)
SECOND_STAGE = (
    "theirs pools the second stage's 128 channels, the paper the last one's (512 here): 4 projections to 32 and a 1x1 "
    "convolution from 256 to 512, classified by 3x3, are 0.236 M beside the ResNet's 11.177 M; ours, 4 to 128 and a "
    "3x3 convolution from 1024 to 128, 1.446 M (tests/test_nets_deeplab.py)."
)
WIDER = (
    "its last 3x3 convolution has 1024 channels, twice the paper's: 18.885 M parameters and 154.70 G more. It counts "
    "the training head, 2.365 M and 19.37 G. Together 86.83 M and 683.32 G; its norms' running statistics (0.112 M) "
    "and two operations for each number that they give (0.97 G), and three 3x3 convolutions at the start (0.019 M, "
    "2.5 G) bring 86.96 M and 686.8 G (tests/test_nets_deeplab.py)."
)
PAPER_HAS_MORE = (
    "the paper gives 49.0 M parameters for it; B, and C with 13.32 M, count what ours has. The paper's number is not "
    "explained."
)
EARLIER = (
    "the multiply-adds are of the larger network of an earlier version of the paper, and their issue does not say what "
    "it counts."
)
ANOTHER = "D: of YOLO26-sem, another network, shown for orientation"

PUBLISHED: dict[str, Published] = {
    "enet": Published(
        "Paszke et al. 2016, 1606.02147",
        0.37,
        3.83 / 2,
        (360, 640),
        "C; operations in the paper",
        ALL_OPERATIONS,
    ),
    "fastscnn": Published("Poudel et al. 2019, 1902.04502", 1.11, 2.04, A, "the paper; A", PYRAMID_OF_3X3),
    "bisenetv1": Published("Yu et al. 2018, 1808.00897", 13.3, 118.0, B, "B", note=PAPER_HAS_MORE),
    "bisenetv2": Published("Yu et al. 2021, 2004.02147", 2.33, 16.14, A, "A"),
    "stdc1": Published("Fan et al. 2021, 2104.13188", 8.29, 24.83, A, "A", TWICE.format(24.82)),
    "stdc2": Published("Fan et al. 2021, 2104.13188", 12.33, 38.05, A, "A", TWICE.format(38.04)),
    "ppliteseg_t": Published(
        "Peng et al. 2022, 2204.02681",
        6.33,
        source="C",
        differs=OTHER_DECODER.format(0.862, 0.542, 0.135, 2.158, 0.022, 0.010, 1.691),
    ),
    "ppliteseg_b": Published(
        "Peng et al. 2022, 2204.02681",
        10.56,
        source="C",
        differs=OTHER_DECODER.format(0.935, 0.542, 0.261, 2.306, 0.022, 0.038, 1.667),
    ),
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
    "segformer_b0": Published("Xie et al. 2021, 2105.15203", 3.72, 13.63, A, "A", LINEAR.format(8.590, 4.16, 13.60)),
    "segformer_b1": Published(
        "Xie et al. 2021, 2105.15203", 13.68, 26.55, A, "A", note=LINEAR.format(8.590, 8.32, 26.50)
    ),
    "segformer_b2": Published(
        "Xie et al. 2021, 2105.15203", 27.36, 113.71, A, "A", LINEAR.format(77.309, 15.57, 113.59)
    ),
    "segformer_b3": Published(
        "Xie et al. 2021, 2105.15203", 47.24, 142.97, A, "A", LINEAR.format(77.309, 23.62, 142.82)
    ),
    "segformer_b4": Published(
        "Xie et al. 2021, 2105.15203", 64.01, 171.05, A, "A", LINEAR.format(77.309, 33.96, 170.86)
    ),
    "segformer_b5": Published(
        "Xie et al. 2021, 2105.15203", 84.61, 199.68, A, "A", LINEAR.format(77.309, 40.53, 199.46)
    ),
    "segformer_r18": Published("Xie et al. 2021, 2105.15203, on He et al. 2016, 1512.03385"),
    "segformer_r50": Published("Xie et al. 2021, 2105.15203, on He et al. 2016, 1512.03385"),
    "segformer_swin_t": Published("Xie et al. 2021, 2105.15203, on Liu et al. 2021, 2103.14030"),
    "yolo_n": Published("Wang et al. 2020, 1911.11929; Liu et al. 2018, 1803.01534", 1.6, 22.7 / 2, B, ANOTHER),
    "yolo_s": Published("Wang et al. 2020, 1911.11929; Liu et al. 2018, 1803.01534", 6.5, 88.8 / 2, B, ANOTHER),
    "regseg": Published("Gao 2021, 2111.09957", 3.34, None, None, "C"),
    "lmffnet": Published(
        "Shi et al. 2022, doi 10.1109/TNNLS.2022.3176493",
        1.35,
        16.7,
        A,
        "the authors' README; their issue 1",
        note=EARLIER,
    ),
}
