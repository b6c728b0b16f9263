"""Counts by hand, and the zoo's table of two networks."""

import re
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional

from roadseg import config
from roadseg.deploy import engines, latency, memory
from roadseg.deploy.engines import Form
from roadseg.errors import StageFailure, UserError
from roadseg.nets import counts
from roadseg.stages import profile, zoo
from roadseg.stages.sizes import deployed
from roadseg.stages.training import Course
from tests import brightest
from tests.test_overfit import STREETS, prepared


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.classifier = nn.Conv2d(8, 5, 1)
        self.heads = nn.ModuleList([nn.Conv2d(8, 100, 3)])
        self.register_buffer("mixing", torch.eye(5))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        weight = (self.mixing @ self.classifier.weight.flatten(1)).view_as(self.classifier.weight)
        return functional.conv2d(self.norm(self.conv(image)), weight, self.classifier.bias)


def test_counts_are_those_by_hand() -> None:
    net = Small()
    assert counts.parameters(net) == 3 * 8 * 9 + 8 + 8 + 8 * 5 + 5, "training heads are not deployed"
    positions = 10 * 16
    assert counts.multiply_adds(net, 20, 32) == positions * (3 * 8 * 9 + 8 * 5), "not the product of weights alone"
    assert net.training and next(net.parameters()).device.type == "cpu", "a copy is counted"


def test_peak_memory_is_of_a_process_that_runs_the_model(tmp_path: Path) -> None:
    model = brightest.write(tmp_path / "model.onnx")
    large = brightest.write(tmp_path / "large.onnx", 3000, 4000)
    form = Form("onnxruntime", "float32", 1, "cpu")
    small, big = memory.peak_mb(model, form), memory.peak_mb(large, form)
    assert 20 < small < 600
    assert big > small + 100, "12 megapixels in float32 are 137 MB"
    with pytest.raises(StageFailure, match=r"gone\.onnx cannot run as onnxruntime float32"):
        memory.peak_mb(tmp_path / "gone.onnx", form)


def test_what_is_timed_and_what_is_exported_has_the_size_that_is_trained(workspace: Path) -> None:
    """Drawn scenes of 64x96, shrunk to a long side of 64; a session brings ids back to the image's size."""
    given = prepared(sources=STREETS, train={"long_side": 64})
    profile.run(given)
    assert deployed(given) == ((64, 96), (43, 64)) == ((64, 96), Course.open(given).train.size)


def test_the_table_has_a_row_a_form_and_marks_what_fits(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(latency, "WARM_UP_S", 0.0)
    monkeypatch.setattr(latency, "ROUND_S", 0.0)
    monkeypatch.setattr(latency, "certify", partial(latency.certify, max_seconds=0.02))
    zoo.run(config.read(), ["enet", "fastscnn", "enet"], (64, 96), budget_ms=1e6)
    frame = pd.read_csv("models/zoo/zoo.csv")
    forms = [("onnxruntime", "float32"), ("openvino", "float32")]
    if "bfloat16" in engines.ENGINES["openvino"]("cpu"):
        forms.append(("openvino", "bfloat16"))
    for _, rows in frame.groupby("network"):
        assert list(zip(rows["engine"], rows["precision"], strict=True)) == forms
    assert set(frame["network"]) == {"enet", "fastscnn"}
    assert set(frame["parameters"]) == {365_474, 1_137_795}
    assert frame["fits"].all() and (frame["peak_mb"] > 20).all() and (frame["multiply_adds"] > 1e6).all()
    assert Path("models/zoo/zoo.png").is_file()
    assert "multiply-adds of one image by torch's counter" in " ".join(capsys.readouterr().out.split())
    zoo.run(config.read(), ["enet"], (64, 96), budget_ms=1e-6)
    assert not pd.read_csv("models/zoo/zoo.csv")["fits"].any()


def test_an_unknown_network_is_one_line(workspace: Path) -> None:
    with pytest.raises(UserError, match="there is no network 'resnet': choose one of enet"):
        zoo.run(config.read(), ["resnet"])


@pytest.mark.parametrize(("text", "expected"), [("20ms", 20), ("20", 20), (" 0.5 s", 500), ("1.5MS", 1.5)])
def test_a_budget_is_read_as_people_write_it(text: str, expected: float) -> None:
    assert zoo.milliseconds(text) == expected


@pytest.mark.parametrize("text", ["", "fast", "-3ms", "0", "nan", "inf"])
def test_what_is_no_time_is_said(text: str) -> None:
    with pytest.raises(UserError, match=f"--budget {re.escape(repr(text))} is no time: write 20ms"):
        zoo.milliseconds(text)
