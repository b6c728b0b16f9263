"""A trained network as an ONNX file that takes a camera's bytes and gives class ids.

Inside the graph: uint8 to float, division by 255, normalisation, the network, the arg max over classes. So a deployer
cannot prepare an image otherwise than training did.
"""

import logging
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from roadseg.config import Target
from roadseg.errors import UserError

OPSET = 20


class Deployed(nn.Module):
    """uint8 [1, H, W, 3] RGB 0-255 -> uint8 [1, H, W] class ids, around a network that takes normalised float BCHW."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        scaled = image.permute(0, 3, 1, 2).float() / 255
        logits: Tensor = self.net((scaled - self.mean) / self.std)
        return logits.argmax(dim=1).to(torch.uint8)


def input_size(target: Target, sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """(height, width) in pixels of the deployed model's input: the target's where set, else the commonest of `sizes`,
    at which training sees its images."""
    height, width = commonest(sizes)
    return target.height or height, target.width or width


def commonest(sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Of training images' sizes; of two that are as common the larger, so that the answer does not hang on an order."""
    counted = Counter(sizes)
    if not counted:
        raise UserError("there is no training image, so no input size: look at data/profile/scenes.csv")
    return max(counted, key=lambda size: (counted[size], size))


def to_onnx(
    net: nn.Module, *, height: int, width: int, mean: Sequence[float], std: Sequence[float], path: Path
) -> None:
    """Writes `net` with its pre- and postprocessing to `path`: input "image" uint8 [1, height, width, 3] RGB 0-255,
    output "ids" uint8 [1, height, width].

    The shape is fixed: adaptive pooling exported with a free one is silently wrong at other sizes. The same weights
    give the same bytes, and the file holds no path or source line of this machine.
    """
    deployed = Deployed(net, mean, std).eval()
    example = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)  # torchvision's absence
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", category=FutureWarning)  # torch's exporter meets its own deprecations
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        shape = tuple(deployed(example).shape)
        if shape != (1, height, width):
            raise UserError(f"the network gives {shape[1:]} ids for an input of {(height, width)}: choose another size")
        program = torch.onnx.export(
            deployed,
            (example,),
            input_names=["image"],
            output_names=["ids"],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # dynamo=True always returns a program
    model = program.model_proto
    _strip(model)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _strip(model: onnx.ModelProto) -> None:
    """Takes the exporter's notes out: stack traces with this machine's paths and line numbers."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.ClearField("doc_string")
