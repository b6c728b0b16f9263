"""The backbones from transformers: sizes of their stages, dilation, and the loading of published weights."""

from pathlib import Path

import pytest
import torch
from torch import nn

from roadseg.errors import UserError
from roadseg.nets.backbones import FILES, Backbone, load_imagenet, mit, resnet, swin_tiny

META = torch.device("meta")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def shapes(backbone: Backbone, height: int, width: int) -> list[tuple[int, ...]]:
    return [tuple(features.shape[1:]) for features in backbone.eval()(torch.empty(1, 3, height, width, device=META))]


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# He 2015, table 1: the sizes at 224. The counts are torchvision's, without the classifier of 1000 classes.
@pytest.mark.parametrize(
    ("depth", "widest", "published"),
    [(18, 512, 11_689_512), (34, 512, 21_797_672), (50, 2048, 25_557_032), (101, 2048, 44_549_160)],
)
def test_resnet_is_the_papers(depth: int, widest: int, published: int) -> None:
    with META:
        backbone = resnet(depth)
    assert shapes(backbone, 224, 224) == [
        (widest // 8 * 2**stage, 56 // 2**stage, 56 // 2**stage) for stage in range(4)
    ]
    assert backbone.channels == tuple(widest // 8 * 2**stage for stage in range(4))
    assert parameters(backbone) == published - 1000 * (widest + 1)


# Liu 2021, figure 3 and section 3.3 (Swin-T: C = 96); 28,288,354 with a classifier of 769,000 and its norm of 1,536;
# ours has norms on the four outputs, 2 * (96 + 192 + 384 + 768).
def test_swin_is_the_papers() -> None:
    with META:
        backbone = swin_tiny()
    assert shapes(backbone, 224, 224) == [(96, 56, 56), (192, 28, 28), (384, 14, 14), (768, 7, 7)]
    assert parameters(backbone) == 28_288_354 - 769_000 - 1_536 + 2_880


# Xie 2021, table 6.
@pytest.mark.parametrize("size", range(6))
def test_mit_is_the_papers(size: int) -> None:
    channels = (32, 64, 160, 256) if size == 0 else (64, 128, 320, 512)
    with META:
        backbone = mit(size)
    assert shapes(backbone, 512, 1024) == [(width, 128 >> i, 256 >> i) for i, width in enumerate(channels)]


@pytest.mark.parametrize("make", [lambda: resnet(18), lambda: resnet(50, 8), swin_tiny, lambda: mit(0)])
def test_odd_sizes_are_rounded_up(make) -> None:
    with META:
        backbone = make()
    sizes = [shape[1:] for shape in shapes(backbone, 375, 1242)]
    assert sizes[:2] == [(94, 311), (47, 156)]
    assert sizes[2:] in ([(24, 78), (12, 39)], [(47, 156), (47, 156)])


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilation_computes_the_same_features_more_densely(depth: int, output_stride: int) -> None:
    torch.manual_seed(0)
    plain, dilated = resnet(depth).eval(), resnet(depth, output_stride).eval()
    dilated.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 65, 98)
    with torch.inference_mode():
        for stage, (sparse, dense) in enumerate(zip(plain(image), dilated(image))):
            step = max(1, 4 * 2**stage // output_stride)
            torch.testing.assert_close(dense[..., ::step, ::step], sparse, rtol=0, atol=1e-5 * sparse.max().item())


def test_what_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"depth must be in \[18, 34, 50, 101\] and output stride in .*: 20, 32"):
        resnet(20)
    with pytest.raises(ValueError, match="0 to 5: 6"):
        mit(6)


def classifier(name: str) -> nn.Module:
    """What the hub has: the classification network, here with random weights and three classes."""
    from transformers import (
        ResNetConfig,
        ResNetForImageClassification,
        SegformerConfig,
        SegformerForImageClassification,
        SwinConfig,
        SwinForImageClassification,
    )

    if name == "resnet":
        config = ResNetConfig(layer_type="basic", depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], num_labels=3)
        return ResNetForImageClassification(config)
    if name == "swin":
        return SwinForImageClassification(SwinConfig(num_labels=3))
    return SegformerForImageClassification(SegformerConfig(num_labels=3))


PLACELESS = "in the file, has no place here"
NORMS = [f"hidden_states_norms.stage{i}.{kind}" for i in (1, 2, 3, 4) for kind in ("bias", "weight")]


@pytest.mark.parametrize(
    ("name", "make", "left"),
    [
        ("resnet", lambda: resnet(18, 8), [f"classifier.1.{kind}: {PLACELESS}" for kind in ("bias", "weight")]),
        ("mit", lambda: mit(0), [f"classifier.{kind}: {PLACELESS}" for kind in ("bias", "weight")]),
        (
            "swin",
            swin_tiny,
            [f"classifier.{kind}: {PLACELESS}" for kind in ("bias", "weight")]
            + [f"{norm}: not in the file, stays as it is" for norm in NORMS]
            + [f"swin.layernorm.{kind}: {PLACELESS}" for kind in ("bias", "weight")],
        ),
    ],
)
def test_published_weights_are_loaded_and_the_rest_is_listed(name: str, make, left: list[str], tmp_path: Path) -> None:
    published, backbone = classifier(name), make()
    published.save_pretrained(tmp_path)
    before = {key: value.clone() for key, value in backbone.model.state_dict().items()}
    assert load_imagenet(backbone, tmp_path) == left
    theirs = {key.removeprefix(f"{name}."): value for key, value in published.state_dict().items()}
    theirs |= {key.removeprefix("segformer."): value for key, value in published.state_dict().items()}
    for key, value in backbone.model.state_dict().items():
        expected = before[key] if key in NORMS else theirs[key.removeprefix("swin.")]
        assert torch.equal(value, expected), key
    assert backbone.training


def test_a_weight_of_another_shape_stays_and_is_listed(tmp_path: Path) -> None:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(layer_type="basic", depths=[2, 2, 2, 1], hidden_sizes=[64, 128, 256, 384], num_labels=3)
    ResNetForImageClassification(config).save_pretrained(tmp_path)
    backbone = resnet(18)
    own = backbone.model.encoder.stages[3].layers[0].shortcut.convolution.weight
    before = own.clone()
    lines = load_imagenet(backbone, tmp_path)
    key = "encoder.stages.3.layers.0.shortcut.convolution.weight"
    assert f"{key}: (384, 256, 1, 1) in the file, (512, 256, 1, 1) here, stays as it is" in lines
    assert "encoder.stages.3.layers.1.layer.0.convolution.weight: not in the file, stays as it is" in lines
    assert torch.equal(own, before)


def test_weights_that_are_not_there_are_described_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"HF_HUB_OFFLINE keeps it from the hub: .*`hf download microsoft/resnet-18 --local-dir FOLDER/res",
    ):
        load_imagenet(resnet(18))
    with pytest.raises(
        UserError, match=r"has neither model.safetensors nor pytorch_model.bin: .* download nvidia/mit-b"
    ):
        load_imagenet(mit(0), tmp_path)
    with pytest.raises(UserError, match=r"the folder .*typo is not there: .* download microsoft/resnet-18"):
        load_imagenet(resnet(18), tmp_path / "typo")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "harm", [lambda _: b"", lambda whole: whole[:1000], lambda whole: whole[:-1000], lambda _: b"<html>no</html>"]
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, harm) -> None:
    backbone = resnet(18)
    if name == "model.safetensors":
        backbone.model.save_pretrained(tmp_path)
    else:
        torch.save(backbone.model.state_dict(), tmp_path / name)
    (tmp_path / name).write_bytes(harm((tmp_path / name).read_bytes()))
    with pytest.raises(UserError, match=rf"/{name} is damaged \(.+\): remove it, and where there is a net") as caught:
        load_imagenet(backbone, tmp_path)
    assert "\n" not in str(caught.value) and "reached" not in str(caught.value)


def test_a_damaged_file_of_the_hubs_cache_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "models--microsoft--resnet-18" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    (snapshot / "model.safetensors").write_bytes(b"short")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=rf"{snapshot}/model.safetensors is damaged"):
        load_imagenet(resnet(18))


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    classifier("mit").save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"0 of \d+ weights of microsoft/resnet-18 are in .*, fewer than half: it is"):
        load_imagenet(resnet(18), tmp_path)
