"""A deployable model whose answer NumPy knows: the class of a pixel is the brightest of its three channels."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image


def write(path: Path, height: int = 24, width: int = 32) -> Path:
    """An ONNX file with the same input and output as an export of ours."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ArgMax", ["pixels"], ["places"], axis=3, keepdims=0),
        helper.make_node("Cast", ["places"], ["ids"], to=TensorProto.UINT8),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, height, width, 3])
    ids = helper.make_tensor_value_info("ids", TensorProto.UINT8, [1, height, width])
    graph = helper.make_graph(nodes, "brightest", [image], [ids])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(model)
    return path


def answer(image: np.ndarray) -> np.ndarray:
    """uint8 HWC -> uint8 HW, the first of equally bright channels."""
    return image.argmax(axis=2).astype(np.uint8)


def picture(seed: int, height: int = 24, width: int = 32) -> np.ndarray:
    """uint8 HWC RGB noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path
