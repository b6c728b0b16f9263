"""SegFormer against transformers' own, its published counts, and its decoder on other encoders."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from roadseg.nets import counts
from roadseg.nets.published import LINEAR, PUBLISHED
from roadseg.nets.segformer import ENCODERS, SegFormer

SCALES = ((32, (15, 20)), (64, (8, 10)), (160, (4, 5)), (256, (2, 3)))


def shaped(encoder: str) -> SegFormer:
    """The network without its weights: enough to count."""
    with torch.device("meta"):
        return SegFormer(19, encoder).eval()


# PaddleSeg's model zoo, 19 classes.
@pytest.mark.parametrize(
    ("encoder", "published"),
    [("b0", 3.72e6), ("b1", 13.68e6), ("b2", 27.36e6), ("b3", 47.24e6), ("b4", 64.01e6), ("b5", 84.61e6)],
)
def test_parameters_are_the_published_ones(encoder: str, published: float) -> None:
    assert sum(parameter.numel() for parameter in shaped(encoder).parameters()) == pytest.approx(published, abs=5e3)


@pytest.mark.parametrize(
    ("encoder", "linear", "everything"),
    [
        *[("b0", 13.63, 17.76), ("b1", 26.55, 34.82), ("b2", 113.71, 129.16)],
        *[("b3", 142.97, 166.44), ("b4", 171.05, 204.82), ("b5", 199.68, 239.99)],
    ],
)
def test_multiply_adds_are_the_published_ones(encoder: str, linear: float, everything: float) -> None:
    """At 512x1024, in 10^9. PaddleSeg's counter sees layers (convolutions, linear), not the two matrix products of the
    attention, which are torch's `bmm`; with them it is up to a third more. The published decoder convolves its four
    projections side by side at a quarter."""
    with FlopCounterMode(display=False) as counter:
        shaped(encoder)(torch.empty(1, 3, 512, 1024, device="meta"))
    attention = counter.get_flop_counts()["Global"][torch.ops.aten.bmm] / 2e9
    ours = counts.multiply_adds(shaped(encoder), 512, 1024) / 1e9
    side_by_side = 128 * 256 * 4 * ENCODERS[encoder][1] ** 2 / 1e9
    assert ours + side_by_side == pytest.approx(everything, rel=1e-3)
    assert ours + side_by_side - attention == pytest.approx(linear, rel=0.005)
    said = LINEAR.format(side_by_side, attention, ours + side_by_side - attention)
    known = PUBLISHED[f"segformer_{encoder}"]
    assert (known.differs or known.note) == said, "B1's differences cancel"


def test_an_unknown_encoder_is_answered_with_the_known() -> None:
    with pytest.raises(ValueError, match=r"encoder must be in \['b0', .*'swin_t'\]: b7"):
        SegFormer(19, "b7")


@pytest.mark.parametrize(("encoder", "hidden"), [("b0", 256), ("b2", 768)])
def test_the_logits_are_those_of_transformers(encoder: str, hidden: int) -> None:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(0)
    net = SegFormer(19, encoder).eval()
    sizes = {
        "b0": {"hidden_sizes": [32, 64, 160, 256], "depths": [2, 2, 2, 2]},
        "b2": {"hidden_sizes": [64, 128, 320, 512], "depths": [3, 4, 6, 3]},
    }[encoder]
    reference = SegformerForSemanticSegmentation(
        SegformerConfig(num_labels=19, decoder_hidden_size=hidden, **sizes)
    ).eval()
    theirs, ours = reference.decode_head, net.decoder
    torch.nn.init.uniform_(theirs.batch_norm.running_mean)
    torch.nn.init.uniform_(theirs.batch_norm.running_var, 0.5, 2.0)
    net.backbone.model.load_state_dict(reference.segformer.state_dict())
    for projection, linear in zip(ours.projections, theirs.linear_projections):
        weights = {"weight": linear.proj.weight[..., None, None], "bias": linear.proj.bias}
        projection.load_state_dict(weights)
    ours.fuse[0].load_state_dict(theirs.linear_fuse.state_dict())
    ours.fuse[1].load_state_dict(theirs.batch_norm.state_dict())
    ours.classifier.load_state_dict(theirs.classifier.state_dict())
    image = torch.randn(2, 3, 65, 97)
    with torch.inference_mode():
        expected = reference(image).logits
        torch.testing.assert_close(net.decoder(net.backbone(image)), expected, rtol=0, atol=1e-5)
        assert net(image).shape == (2, 19, 65, 97)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_decoder_works_at_a_quarter(encoder: str) -> None:
    net = shaped(encoder)
    seen = {}
    net.decoder.fuse[1].register_forward_hook(lambda module, inputs, output: seen.update(fused=output))
    assert net(torch.empty(2, 3, 375, 1242, device="meta")).shape == (2, 19, 375, 1242)
    assert seen["fused"].shape == (2, ENCODERS[encoder][1], 94, 311)


def test_the_decoder_is_the_published_one_with_its_gradients() -> None:
    torch.manual_seed(0)
    decoder = SegFormer(19, "b0").decoder.double().train()
    decoder.dropout.p = 0.0
    scales = [torch.randn(2, channels, *size, dtype=torch.float64) for channels, size in SCALES]
    weights = torch.randn(2, 19, 15, 20, dtype=torch.float64)
    projected = [
        torch.nn.functional.interpolate(project(scale), size=(15, 20), mode="bilinear")
        for project, scale in zip(decoder.projections, scales, strict=True)
    ]
    published = decoder.classifier(decoder.fuse(torch.cat(projected[::-1], dim=1)))  # the norm sees the batch in both
    logits = decoder(scales)
    torch.testing.assert_close(logits, published, rtol=1e-9, atol=1e-9)
    parameters = list(decoder.parameters())
    expected = torch.autograd.grad((published * weights).sum(), parameters)
    torch.testing.assert_close(
        torch.autograd.grad((logits * weights).sum(), parameters), expected, rtol=1e-7, atol=1e-7
    )
