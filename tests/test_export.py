import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from bench import zoo
from roadseg import nets
from roadseg.config import Target
from roadseg.deploy import engines, export
from roadseg.deploy.engines import Form
from roadseg.errors import UserError
from roadseg.nets import counts
from tests import brightest

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Tiny(nn.Module):
    """Down by 2, up again, four classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = self.head(self.conv(image).relu())
        return functional.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=False)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "model.onnx"
    export.to_onnx(Tiny(), height=30, width=44, mean=MEAN, std=STD, path=path)
    return path


def expected(net, image):
    """Preprocessing in NumPy float64 by the textbook, the network alone in torch."""
    scaled = (image.astype(np.float64) / 255 - MEAN) / STD
    with torch.no_grad():
        logits = net.eval()(torch.from_numpy(scaled.astype(np.float32)).permute(2, 0, 1)[None])
    return logits.argmax(1)[0].numpy()


def session(path, engine="onnxruntime", precision="float32"):
    return engines.open_session(path, engine, precision, 1)


def test_graph_takes_bytes_and_gives_ids(tiny):
    graph = onnx.load(tiny).graph
    (image,), (ids,) = graph.input, graph.output
    shape = [[axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in (image, ids)]
    assert (image.name, ids.name, shape) == ("image", "ids", [[1, 30, 44, 3], [1, 30, 44]])
    assert {value.type.tensor_type.elem_type for value in (image, ids)} == {onnx.TensorProto.UINT8}


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_preprocessing_inside_the_graph_is_the_textbooks(tiny, engine):
    image = brightest.picture(0, 30, 44)
    assert (session(tiny, engine).run(image) == expected(Tiny(), image)).mean() > 0.999


def quick(name: str) -> bool:
    """Whether it is exported in every test run; bench/zoo.py does it for all."""
    with torch.device("meta"):
        return counts.parameters(nets.build(name, 5)) < 4e6


@pytest.mark.parametrize("name", [name for name in nets.NETS if quick(name)])
def test_a_network_says_the_same_in_every_engine(name):
    """At a size that is a multiple of nothing."""
    said = zoo.agreement(name, 75, 133)
    assert said.pop("largest class") < zoo.VARIED, "or agreeing would be easy"
    assert set(said) == set(engines.ENGINES)
    assert min(said.values()) >= zoo.LEAST, said


def test_same_weights_same_bytes_without_paths_of_this_machine(tiny, tmp_path):
    export.to_onnx(Tiny(), height=30, width=44, mean=MEAN, std=STD, path=tmp_path / "again.onnx")
    content = tiny.read_bytes()
    assert content == (tmp_path / "again.onnx").read_bytes()
    assert b".py" not in content
    assert b"stack_trace" not in content


def test_network_that_gives_another_size_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"gives \(15, 22\) ids for an input of \(30, 44\)"):
        export.to_onnx(nn.Conv2d(3, 4, 1, stride=2), height=30, width=44, mean=MEAN, std=STD, path=tmp_path / "x")


def target(height=None, width=None):
    return Target(
        device="cpu",
        budget_ms=50,
        height=height,
        width=width,
        engines=("onnxruntime",),
        threads=1,
        accept_unstable=False,
    )


def test_input_size_is_the_targets_or_the_commonest():
    sizes = [(10, 20), (30, 40), (10, 20)]
    assert export.input_size(target(), sizes) == (10, 20)
    assert export.input_size(target(), [(10, 20), (30, 40)]) == (30, 40)  # as common: the larger
    assert export.input_size(target(64, 96), sizes) == (64, 96)
    with pytest.raises(UserError, match="no training image"):
        export.input_size(target(), [])


# ---- engines


def test_forms_are_every_engine_and_precision_here():
    forms = engines.forms(("openvino", "onnxruntime"), "cpu", 2)
    assert forms[0] == Form("openvino", "float32", 2, "cpu")
    assert forms[-1] == Form("onnxruntime", "float32", 2, "cpu")
    assert (Form("openvino", "bfloat16", 2, "cpu") in forms) == ("bfloat16" in engines.ENGINES["openvino"]("cpu"))


def test_bfloat16_only_where_the_cpu_says_so(monkeypatch):
    import openvino

    for capabilities, offered in ((["FP32", "BF16"], ["float32", "bfloat16"]), (["FP32", "INT8"], ["float32"])):
        monkeypatch.setattr(openvino.Core, "get_property", lambda *_, found=capabilities: found)
        assert engines.ENGINES["openvino"]("cpu") == offered


def test_wrong_engine_and_device_name_what_there_is():
    with pytest.raises(UserError, match="'tensorrt' is not an engine: use some of onnxruntime, openvino"):
        engines.forms(("tensorrt",), "cpu", 1)
    with pytest.raises(UserError, match=r"target.device: none of openvino can run on 'cuda'"):
        engines.forms(("openvino",), "cuda", 1)


def test_fallback_is_an_error(tiny, monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(UserError, match="no CUDAExecutionProvider"):
        engines.open_session(tiny, "onnxruntime", "float32", 1, "cuda")
    with pytest.raises(UserError, match="openvino has no int4 on cpu"):
        session(tiny, "openvino", "int4")
    if "bfloat16" not in engines.ENGINES["openvino"]("cpu"):  # this compiler says nothing and computes in float32
        with pytest.raises(UserError, match="fell back from bfloat16"):
            session(tiny, "openvino", "bfloat16")


def test_provider_that_drops_out_while_opening_is_an_error(tiny, monkeypatch):
    """ONNX Runtime lists CUDA, cannot start it, and opens a CPU session without raising."""
    import onnxruntime

    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda path, *_, **__: real(path, providers=["CPUExecutionProvider"])
    )
    with pytest.raises(UserError, match="fell back from CUDAExecutionProvider to CPUExecutionProvider"):
        engines.open_session(tiny, "onnxruntime", "float32", 1, "cuda")


def test_other_image_sizes_go_in_and_come_back(tmp_path):
    model = session(brightest.write(tmp_path / "model.onnx", 24, 32))
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :32, 1], image[:, 32:, 2] = 200, 200
    ids = model.run(image)
    assert ids.shape == (48, 64)
    assert set(np.unique(ids[:, :30])) == {1}
    assert set(np.unique(ids[:, 34:])) == {2}
    with pytest.raises(Exception, match="height x width x 3; this is float32"):
        model.run(image.astype(np.float32))
