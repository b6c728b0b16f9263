"""The losses against loops in float64, and what ignored pixels, weights and low precision must not do."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from roadseg import losses
from roadseg.errors import UserError
from roadseg.losses.pixels import Pixels
from tests.compiler import needs_compiler

CLASSES = 5
WEIGHTS = [0.5, 2.0, 7.0, 1.0, 30.0]
USE_WEIGHTS = ("weighted_cross_entropy", "focal", "ohem")
EVERY = pytest.mark.parametrize("name", losses.LOSSES)


@pytest.fixture(autouse=True, params=[pytest.param("kernels", marks=needs_compiler), "torch"])
def computed_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch is how a GPU computes them, and a machine without a compiler."""
    if request.param == "torch":
        monkeypatch.setattr(Pixels, "fit_kernels", False)


def build(text: str, weights: list[float] = WEIGHTS) -> losses.Loss:
    return losses.build(text, {"enet": weights})


def batch(seed: int = 0, scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and targets of two scenes of 7x6; about a third is ignored, class 3 is absent."""
    random = np.random.default_rng(seed)
    logits = torch.from_numpy(random.normal(scale=scale, size=(2, CLASSES, 7, 6)).astype(np.float32))
    target = random.choice([0, 1, 2, 4, 255], p=[0.4, 0.15, 0.1, 0.05, 0.3], size=(2, 7, 6))
    return logits, torch.from_numpy(target.astype(np.int64))


def probabilities(logits: torch.Tensor, target: torch.Tensor) -> list[tuple[np.ndarray, int]]:
    """(class probabilities, class) of each labelled pixel, float64."""
    pixels = []
    for b, y, x in np.ndindex(*target.shape):
        if target[b, y, x] != 255:
            exponents = np.exp(logits[b, :, y, x].double().numpy())
            pixels.append((exponents / exponents.sum(), int(target[b, y, x])))
    return pixels


def mean(terms: list[tuple[float, float]]) -> float:
    """Of (value, weight)."""
    return sum(value * weight for value, weight in terms) / sum(weight for _, weight in terms)


def naive(name: str, logits: torch.Tensor, target: torch.Tensor) -> float:
    pixels = probabilities(logits, target)
    plain = mean([(-math.log(p[y]), 1.0) for p, y in pixels])
    if name == "cross_entropy":
        return plain
    if name == "weighted_cross_entropy":
        return mean([(-math.log(p[y]), WEIGHTS[y]) for p, y in pixels])
    if name == "focal":
        return mean([(-((1 - p[y]) ** 2) * math.log(p[y]), WEIGHTS[y]) for p, y in pixels])
    if name == "ohem":
        hardest = sorted(pixels, key=lambda pixel: pixel[0][pixel[1]])
        kept = max(sum(p[y] < 0.7 for p, y in pixels), math.ceil(len(pixels) / 16))
        return mean([(-math.log(p[y]), WEIGHTS[y]) for p, y in hardest[:kept]])
    if name == "edge":
        return edge(logits, target)
    misses = []
    for c in sorted({y for _, y in pixels}):
        overlap = sum(p[c] for p, y in pixels if y == c)
        both = sum(p[c] for p, _ in pixels) + sum(y == c for _, y in pixels)
        if name == "lovasz":
            misses.append(lovasz([(p[c], y == c) for p, y in pixels]))
        else:
            misses.append(1 - overlap / (both - overlap) if name == "jaccard" else 1 - 2 * overlap / both)
    return sum(misses) / len(misses) + (plain if name == "dice" else 0)


def lovasz(pixels: list[tuple[float, bool]]) -> float:
    """The Lovász extension by its definition (Berman 2018, equation 9): errors, from the largest on, times what each
    adds to the Jaccard loss of the set of wrong pixels."""
    errors = sorted(((abs(truth - p), truth) for p, truth in pixels), key=lambda one: -one[0])
    total, value, before = sum(truth for _, truth in pixels), 0.0, 0.0
    for n in range(1, len(errors) + 1):
        loss = n / (total + sum(not truth for _, truth in errors[:n]))  # of n wrong pixels: 1 - IoU
        value += errors[n - 1][0] * (loss - before)
        before = loss
    return value


def edge(logits: torch.Tensor, target: torch.Tensor) -> float:
    """Mean over labelled pixels with a labelled neighbour of another class."""
    terms = []
    _, height, width = target.shape
    for b, y, x in np.ndindex(*target.shape):
        near = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        others = [int(target[b, r, c]) for r, c in near if 0 <= r < height and 0 <= c < width]
        if target[b, y, x] != 255 and any(other not in (255, target[b, y, x]) for other in others):
            exponents = np.exp(logits[b, :, y, x].double().numpy())
            terms.append(-math.log(exponents[target[b, y, x]] / exponents.sum()))
    return sum(terms) / len(terms)


@EVERY
@pytest.mark.parametrize("scale", [0.1, 2.0, 8.0])
def test_a_loss_is_what_a_loop_says(name: str, scale: float) -> None:
    for seed in range(3):
        logits, target = batch(seed, scale)
        assert build(name)(logits, target).item() == pytest.approx(naive(name, logits, target), rel=1e-5)


def test_ohem_keeps_the_least_share_where_nothing_is_hard() -> None:
    logits, target = batch()
    logits = functional.one_hot(target.clamp_max(4), CLASSES).movedim(3, 1) * 6.0 + logits * 0.1
    assert all(p[y] > 0.7 for p, y in probabilities(logits, target))
    value = build("ohem")(logits, target).item()
    assert value == pytest.approx(naive("ohem", logits, target), rel=1e-5)
    assert value > build("weighted_cross_entropy")(logits, target).item()


def test_weighted_cross_entropy_and_its_gradient_are_torchs() -> None:
    logits, target = batch()
    mine, torchs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    build("weighted_cross_entropy")(mine, target).backward()
    functional.cross_entropy(torchs, target, torch.tensor(WEIGHTS), ignore_index=255).backward()
    torch.testing.assert_close(mine.grad, torchs.grad)


@EVERY
def test_a_batch_of_ignored_pixels_costs_nothing_and_moves_nothing(name: str) -> None:
    logits, target = batch()
    logits.requires_grad_()
    loss = build(name)(logits, torch.full_like(target, 255))
    (1000 * loss).backward()  # as a factor in a sum, or a gradient scaler, does
    assert loss.item() == 0
    assert logits.grad is not None and not logits.grad.any()
    logits = logits.detach()
    logits[:, 3] = -torch.inf
    assert build(name)(logits, torch.full_like(target, 255)).item() == 0


@EVERY
def test_ignored_pixels_are_in_no_denominator_and_get_no_gradient(name: str) -> None:
    logits, target = batch()
    padded_logits = torch.cat([logits, torch.randn(2, CLASSES, 7, 30)], dim=3).requires_grad_()
    padded_target = torch.cat([target, torch.full((2, 7, 30), 255)], dim=2)
    loss = build(name)
    value = loss(padded_logits, padded_target)
    value.backward()
    assert value.item() == pytest.approx(loss(logits, target).item(), rel=1e-6)
    assert not padded_logits.grad[:, :, padded_target[0] == 255][0].any()


@EVERY
def test_only_classes_of_weight_zero_cost_nothing(name: str) -> None:
    logits, target = batch()
    target = torch.where(target == 255, 255, 1)
    value = build(name, [1.0, 0.0, 1.0, 1.0, 1.0])(logits, target)
    assert value.isfinite()
    assert (value == 0) == (name in USE_WEIGHTS or name == "edge"), "and of one class there are no edges"


@EVERY
def test_sure_and_right_costs_nothing_sure_and_wrong_stays_finite(name: str) -> None:
    _, target = batch()
    loss = build(name)
    right = (functional.one_hot(target.clamp_max(4), CLASSES).movedim(3, 1) * 200.0).requires_grad_()
    assert loss(right, target).item() == pytest.approx(0, abs=1e-6)
    wrong = (-right.detach()).requires_grad_()
    value = loss(wrong, target)
    value.backward()
    assert value.item() > 0.999
    assert wrong.grad.isfinite().all()
    assert (wrong.grad.abs() > 1e-30).any() == (name not in ("soft_dice", "jaccard", "lovasz")), (
        "these are never used alone"
    )


@EVERY
def test_low_precision_logits_are_reduced_in_float32(name: str) -> None:
    """bfloat16 has 8 bits: a sum over 4,096 pixels taken in it would stop growing at about 256."""
    torch.manual_seed(0)
    logits, target = torch.randn(1, CLASSES, 64, 64).bfloat16(), torch.randint(CLASSES, (1, 64, 64))
    loss = build(name)
    expected = loss(logits.double().float(), target)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(logits.requires_grad_(), target)
    value.backward()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected)
    assert logits.grad.dtype == torch.bfloat16 and logits.grad.isfinite().all()


@EVERY
def test_weights_are_used_where_it_says_so(name: str) -> None:
    logits, target = batch()
    weighted, even = build(name)(logits, target), losses.build(name)(logits, target)
    assert (weighted != even) == (name in USE_WEIGHTS)


@EVERY
@pytest.mark.parametrize("size", [(56, 48), (20, 33), (7, 12)])
def test_small_logits_are_enlarged(name: str, size: tuple[int, int]) -> None:
    logits, _ = batch()
    target = torch.randint(0, CLASSES, (2, *size), generator=torch.Generator().manual_seed(1))
    target[:, :3] = 255
    given = [logits.clone().requires_grad_() for _ in range(2)]
    large = functional.interpolate(given[1], size=size, mode="bilinear")
    values = build(name)(given[0], target), build(name)(large, target)
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value, one)[0] for value, one in zip(values, given)))


def test_a_reduced_target_has_the_pixels_at_the_middles() -> None:
    _, target = batch()
    large = torch.full((2, 56, 48), 255)
    large[:, 4::8, 4::8] = target
    assert losses.reduced(large, (7, 6)).equal(target)
    assert losses.reduced(target, (7, 6)).equal(target)
    assert losses.reduced(torch.arange(7)[None, None], (1, 3)).tolist() == [[[1, 3, 5]]]  # 7/6, 7/2, 35/6


@EVERY
def test_a_step_downhill_lowers_it(name: str) -> None:
    logits, target = batch()
    logits.requires_grad_()
    loss = build(name)
    before = loss(logits, target)
    before.backward()
    assert loss(logits - 0.1 * logits.grad / logits.grad.norm(), target) < before


@EVERY
def test_logits_of_float64_are_compared_in_it(name: str) -> None:
    logits, target = batch()
    value = build(name)(logits.double(), target)
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(build(name)(logits, target).item(), rel=1e-5)


def test_a_sum_is_the_sum_of_its_parts() -> None:
    logits, target = batch()
    value = build("dice + 0.5 * lovasz + 2*focal(gamma=3)")(logits, target).item()
    parts = [build(name)(logits, target).item() for name in ("dice", "lovasz", "focal(gamma=3)")]
    assert value == pytest.approx(parts[0] + 0.5 * parts[1] + 2 * parts[2], rel=1e-6)


def test_a_sum_computes_the_softmax_once() -> None:
    logits, target = batch()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        build("dice + weighted_cross_entropy + focal + lovasz")(logits, target)
    counts = {event.key: event.count for event in profile.key_averages()}
    assert (counts["aten::_log_softmax"], counts.get("aten::_softmax", 0)) == (1, 0)


def test_lovasz_keeps_its_gradient_over_a_million_pixels() -> None:
    """Against numpy in float64: a pixel's share of a class's cost is about a millionth."""
    torch.manual_seed(0)
    logits, target = 3 * torch.randn(1, 2, 1024, 1024), torch.randint(2, (1, 1024, 1024))
    build("lovasz")(logits.requires_grad_(), target).backward()
    odds = np.exp(logits.detach().double().numpy()[0].reshape(2, -1))
    p, truth = odds / odds.sum(axis=0), target.numpy().reshape(-1)
    by_p = np.zeros_like(p)
    for c in range(2):
        order = np.argsort(-abs((truth == c) - p[c]))
        others = np.cumsum(truth[order] != c)
        cost = np.arange(1, len(order) + 1) / ((truth == c).sum() + others)
        by_p[c, order] = np.where(truth[order] == c, -1, 1) * np.diff(cost, prepend=0) / 2
    expected = p * (by_p - (p * by_p).sum(axis=0))
    assert np.linalg.norm(logits.grad.numpy().reshape(2, -1) - expected) < 1e-4 * np.linalg.norm(expected)


def test_settings_do_what_they_say() -> None:
    logits, target = batch()
    pixels = probabilities(logits, target)
    steep = mean([(-((1 - p[y]) ** 3) * math.log(p[y]), 1.0) for p, y in pixels])
    assert build("focal(gamma=3, class_weights=none)")(logits, target).item() == pytest.approx(steep, rel=1e-5)
    hardest = sorted(pixels, key=lambda pixel: pixel[0][pixel[1]])[: math.ceil(len(pixels) / 2)]
    few = build("ohem(threshold=0.001, kept=0.5, class_weights=none)")(logits, target).item()
    assert few == pytest.approx(mean([(-math.log(p[y]), 1.0) for p, y in hardest]), rel=1e-5)
    named = losses.build("weighted_cross_entropy(class_weights=inverse)", {"enet": WEIGHTS, "inverse": WEIGHTS[::-1]})
    other = mean([(-math.log(p[y]), WEIGHTS[::-1][y]) for p, y in pixels])
    assert named(logits, target).item() == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "tversky",
            r"there is no loss 'tversky': choose one of cross_entropy, weighted_cross_entropy, focal, ohem,",
        ),
        ("dice(gamma=2)", r"loss 'dice\(gamma=2\)': dice takes no gamma=2.0; its settings: none"),
        ("focal(gamma=high)", r"focal takes no gamma=high; its settings: gamma, class_weights"),
        ("ohem(class_weights=ones)", r"there are no class weights 'ones': choose enet or none"),
        ("dice - edge", r"loss 'dice - edge' cannot be read: write NAME, NAME"),
        ("dice(3)", r"cannot be read"),
        ("ohem(threshold=0)", r"loss 'ohem\(threshold=0\)': `threshold` \(=0\) must be from 1e-06 to 1"),
        ("focal(gamma=-1)", r"loss 'focal\(gamma=-1\)': `gamma` \(=-1\) must be from 0 to 100"),
        ("focal(gamma=1e400)", r"focal takes no gamma=inf"),
        ("dice + 0 * lovasz", r"lovasz has the factor 0, which must be above 0"),
        ("1e400 * dice", r"dice has the factor inf, which must be above 0 and finite"),
        ("2 ** dice", r"cannot be read"),
        ("dice +", r"cannot be read"),
        ("", r"cannot be read"),
        ("__import__('os').system('x')", r"cannot be read"),
        ("dice * 2", r"cannot be read"),
    ],
)
def test_what_cannot_be_read_is_one_line(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        build(text)
    assert "\n" not in str(caught.value)


def test_boundary_loss_is_the_naive_one() -> None:
    random = np.random.default_rng(0)
    target = random.choice([0, 1, 2, 255], p=[0.5, 0.2, 0.1, 0.2], size=(2, 12, 18))
    target[0, :4, :6] = 255
    target[1, 4:8] = 1
    logits = random.normal(size=(2, 1, 6, 6))
    terms, overlap, squares, truths = [], 0.0, 0.0, 0.0
    for b, y, x in np.ndindex(2, 6, 6):
        cells = [(row, column) for row in range(2 * y, 2 * y + 2) for column in range(3 * x, 3 * x + 3)]
        if all(target[b][cell] == 255 for cell in cells):
            continue
        pairs = [((r, c), near) for r, c in cells for near in ((r + 1, c), (r, c + 1)) if near[0] < 12 and near[1] < 18]
        meets = any(255 not in (target[b][a], target[b][o]) and target[b][a] != target[b][o] for a, o in pairs)
        p = 1 / (1 + math.exp(-logits[b, 0, y, x]))
        terms.append(-math.log(p if meets else 1 - p))
        overlap, squares, truths = overlap + p * meets, squares + p * p, truths + meets
    expected = sum(terms) / len(terms) + 1 - (2 * overlap + 1) / (squares + truths + 1)
    assert 5 < truths < len(terms) - 5
    found = losses.boundary(torch.from_numpy(logits), torch.from_numpy(target))
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_boundary_loss_of_an_ignored_batch_is_0_without_gradient() -> None:
    logits = torch.randn(1, 1, 4, 4, requires_grad=True)
    loss = losses.boundary(logits, torch.full((1, 8, 8), 255))
    loss.backward()
    assert loss.item() == 0 and logits.grad is not None and not logits.grad.any()
