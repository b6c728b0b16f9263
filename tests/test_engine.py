"""The loop: exact resume, EMA, precision, evaluation, and that a network learns."""

import copy
import importlib
import io
import sys
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roadseg import engine, losses
from roadseg.engine import Diverged, Report, Training, Views, memory, optimizers
from roadseg.engine import precision as precisions
from roadseg.engine.ema import EMA
from roadseg.engine.fit import _weigh
from roadseg.errors import StageFailure, UserError
from roadseg.nets.cpu_layers import BatchNorm2d, BiasedConvTranspose2d, DepthwiseConv2d, Dropout, PReLU
from roadseg.scenes.batches import Batches
from roadseg.scenes.plan import Phase, Plan, even
from roadseg.schedules import Schedule, one_cycle

evaluation = importlib.import_module("roadseg.engine.evaluate")  # the package's name is the function
CROP = (32, 64)


class Scenes:
    """Stands in for a Pack: a class is a colour, in blocks of 16 pixels; some void."""

    def __init__(self, count: int = 4, size: tuple[int, int] = (32, 64), label_size: tuple[int, int] | None = None):
        random = np.random.default_rng(1)
        colours = random.integers(0, 256, (3, 3), dtype=np.uint8)
        self.pairs = []
        for _ in range(count):
            ids = random.integers(0, 3, (size[0] // 16, size[1] // 16), dtype=np.uint8)
            zoom = (label_size or size)[0] // ids.shape[0]
            label = np.kron(ids, np.ones((zoom, zoom), dtype=np.uint8))
            label[: zoom // 4] = 255
            self.pairs.append((colours[np.kron(ids, np.ones((16, 16), dtype=np.uint8))], label))
        self.pixels = count * size[0] * size[1]
        self.names = [f"scene{number}.png" for number in range(count)]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, scene: int) -> tuple[np.ndarray, np.ndarray]:
        return self.pairs[scene]


class Net(nn.Module):
    """A small network with all that a resume must keep: BatchNorm, dropout, an auxiliary head at half resolution."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.1)
        )
        self.head = nn.Conv2d(8, classes, 1)
        self.aux = nn.Conv2d(8, classes, 1)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        features = self.body(image)
        logits = self.head(features)
        return [logits, self.aux(F.avg_pool2d(features, 2))] if self.training else logits


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """In float32, as roadseg.losses does."""
    assert target.dtype == torch.int64
    return F.cross_entropy(logits.float(), target, ignore_index=255)


def begin(total_steps: int = 12, **changes: Any) -> Training:
    torch.manual_seed(5)
    settings: dict[str, Any] = {
        "loss": cross_entropy,
        "learning_rate": 0.02,
        "weight_decay": 0.01,
        "schedule": Schedule(lambda progress: 1 - progress),
        "ema": 0.9,
        "precision": "float32",
        "channels_last": True,
        "device": "cpu",
        "aux_weight": 0.4,
        "seed": 11,
    }
    return engine.start(changes.pop("net", None) or Net(), total_steps=total_steps, **settings | changes)


def fit(training: Training, pack: Any = None, every_steps: int = 3, **changes: Any) -> Iterator[Report]:
    of_loop = {name: changes.pop(name) for name in ("workers", "setbacks") if name in changes}
    plan = changes.pop("plan", None) or even(training.total_steps, 4, CROP)
    batches = Batches(pack or Scenes(), plan, seed=training.seed, **changes)
    return engine.fit(training, batches, report_every=every_steps, **of_loop)


def flat(state: dict[str, Any], path: str = "") -> dict[str, Any]:
    """A nested state as {path: leaf}."""
    leaves: dict[str, Any] = {}
    for name, value in state.items():
        value = dict(enumerate(value)) if isinstance(value, list | tuple) else value
        leaves |= flat(value, f"{path}/{name}") if isinstance(value, dict) else {f"{path}/{name}": value}
    return leaves


def assert_same(a: Training, b: Training) -> None:
    mine, its = flat(a.state()), flat(b.state())
    assert mine.keys() == its.keys()
    for path in mine.keys() - {"/seconds"}:
        same = torch.equal(mine[path], its[path]) if isinstance(mine[path], Tensor) else mine[path] == its[path]
        assert same, path


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_killed_and_resumed_run_is_an_unbroken_one_bit_for_bit(channels_last: bool) -> None:
    unbroken = begin(channels_last=channels_last)
    reports = list(fit(unbroken))

    killed, file = begin(channels_last=channels_last), io.BytesIO()
    stream = fit(killed)
    first = [next(stream), next(stream)]
    torch.save(killed.state(), file)
    next(stream)  # trained on, never saved
    stream.close()

    torch.manual_seed(999)  # another process: other random state, and a fresh network
    resumed = begin(channels_last=channels_last, learning_rate=0.02)
    torch.rand(7)
    file.seek(0)
    resumed.load(torch.load(file, weights_only=True))
    assert resumed.step == 6
    rest = []
    for report in fit(resumed, workers=2):
        rest.append(report)
        torch.rand(100)  # a consumer's own draws change nothing
        engine.evaluate(resumed.ema.net, Scenes(), classes=3)
    assert_same(unbroken, resumed)
    assert [(r.step, r.loss, r.learning_rate) for r in first + rest] == [
        (r.step, r.loss, r.learning_rate) for r in reports
    ]
    assert list(fit(resumed)) == [], "a finished run has nothing to do"


def test_other_seeds_train_otherwise() -> None:
    runs = [begin(seed=seed) for seed in (11, 11, 12)]
    losses = [next(fit(run)).loss for run in runs]
    assert losses[0] == losses[1] != losses[2]


def test_reports_count_in_splits() -> None:
    pack = Scenes()
    training = begin(total_steps=10)
    reports = list(fit(training, pack, every_steps=4))
    assert [report.step for report in reports] == [4, 8, 10]
    assert [report.epoch for report in reports] == [4, 8, 10], "here a batch is as large as the split"
    assert [report.learning_rate for report in reports] == pytest.approx([0.02 * (1 - step / 10) for step in (3, 7, 9)])
    assert reports[0].seconds < reports[1].seconds < reports[2].seconds == training.seconds
    assert [report.step for report in fit(begin(total_steps=4), every_steps=0.4)] == [1, 2, 3, 4]


def test_a_table_of_biases_does_not_decay() -> None:
    net = nn.Linear(2, 3)
    net.relative_position_bias_table = nn.Parameter(torch.zeros(9, 4))  # as Swin's is called
    decayed, free = optimizers.build("adamw", net, weight_decay=0.01).param_groups
    assert [id(one) for one in decayed["params"]] == [id(net.weight)]
    assert {id(one) for one in free["params"]} == {id(net.bias), id(net.relative_position_bias_table)}


def test_weight_decay_acts_on_matrices_only() -> None:
    decayed, free = begin().optimizer.param_groups
    assert decayed["weight_decay"] == 0.01 and {p.ndim for p in decayed["params"]} == {4}
    assert free["weight_decay"] == 0 and {p.ndim for p in free["params"]} == {1}
    assert len(decayed["params"]) + len(free["params"]) == len(list(Net().parameters()))


def test_a_step_is_a_plain_adamw_step_on_main_and_auxiliary_loss() -> None:
    """One step of `fit` against the same written out."""
    training, twin = begin(total_steps=1, channels_last=False), begin(total_steps=1, channels_last=False)
    seen: list[tuple[Tensor, Tensor]] = []
    handle = training.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    targets: list[Tensor] = []
    training.loss = lambda logits, target: (targets.append(target), cross_entropy(logits, target))[1]
    state = torch.Generator().manual_seed(int(np.random.SeedSequence((11, 0)).generate_state(1)[0])).get_state()
    next(fit(training))
    handle.remove()

    torch.set_rng_state(state)
    net = twin.net.train()
    main, aux = net(seen[0])
    (cross_entropy(main, targets[0]) + 0.4 * cross_entropy(aux, targets[0][:, 1::2, 1::2])).backward()
    matrices = [p for p in net.parameters() if p.ndim > 1]
    rest = [p for p in net.parameters() if p.ndim == 1]
    torch.optim.AdamW(matrices, lr=0.02, weight_decay=0.01).step()
    torch.optim.AdamW(rest, lr=0.02, weight_decay=0).step()
    for (name, mine), its in zip(training.net.named_parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-6, msg=name)


def test_a_checkpoint_of_another_run_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the checkpoint's `total_steps` \(=12\) is not this run's \(=20\)"):
        begin(total_steps=20).load(begin().state())
    with pytest.raises(ValueError, match=r"the checkpoint's `seed` \(=11\) is not this run's \(=3\)"):
        begin(seed=3).load(begin().state())


def test_a_loss_that_is_no_number_stops_the_run() -> None:
    training = begin()
    training.loss = lambda logits, target: cross_entropy(logits, target) * (float("nan") if training.step == 4 else 1)
    stream = fit(training)
    assert next(stream).step == 3
    with pytest.raises(Diverged, match=r"loss nan, norm of its gradient nan at step 4, learning rate 0\.0133, sc"):
        next(stream)
    assert issubclass(Diverged, StageFailure)


def test_a_stopped_run_names_every_scene_of_its_batch() -> None:
    training = begin(loss=lambda logits, target: cross_entropy(logits, target) * float("nan"))
    scenes = Scenes(9)
    with pytest.raises(Diverged) as stopped:
        list(fit(training, scenes, plan=even(12, 8, CROP)))
    batches = Batches(scenes, even(12, 8, CROP), seed=training.seed)  # type: ignore[arg-type]
    named = str(stopped.value).partition(", scenes ")[2].split(", ")
    assert named == batches.names(0) and len(named) > 4


def test_a_running_statistic_that_is_no_number_is_noticed() -> None:
    """Training does not use it, and its loss stays a number; what is saved and deployed does."""
    training = begin()
    stream = fit(training)
    assert next(stream).step == 3
    training.net.body[1].running_var[0] = float("nan")
    with pytest.raises(Diverged, match=r"loss \d.* at step 5, "):
        next(stream)


def test_a_loss_that_is_no_number_takes_training_back_with_half_the_rate() -> None:
    """Twice: then training is what it would be with the lower rate from the last report on."""
    training, spoilt = begin(), {5, 7}

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        bad = training.step in spoilt
        spoilt.discard(training.step)
        return cross_entropy(logits, target) * (float("inf") if bad else 1)

    training.loss = loss
    reports = list(fit(training, setbacks=2))
    assert [(report.step, report.setbacks) for report in reports] == [(3, 0), (6, 1), (9, 2), (12, 2)]
    assert all(np.isfinite(report.loss) for report in reports)
    assert reports[-1].learning_rate == pytest.approx(0.02 / 4 * (1 - 11 / 12))

    expected = begin()
    stream = fit(expected)
    for setbacks in (1, 2):
        next(stream)
        expected.setbacks = setbacks
    list(stream)
    assert_same(training, expected)
    again = begin()
    again.loss = lambda logits, target: cross_entropy(logits, target) * (float("nan") if again.step == 4 else 1)
    with pytest.raises(Diverged, match=r"nan at step 4 after 2 setbacks, learning rate 0\.00333"):
        list(fit(again, setbacks=2))


def test_a_second_setback_starts_from_what_the_first_did() -> None:
    """Twice no number at step 4 without a report between: the state that is gone back to must not have been trained on,
    nor spoilt by what is no number."""
    training, spoilt = begin(aux_weight=0.0), [4] * 4  # twice, of two outputs each

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        bad = training.step in spoilt
        spoilt[:1] = [] if bad else spoilt[:1]
        return cross_entropy(logits, target) * (float("nan") if bad else 1)

    training.loss = loss
    list(fit(training, setbacks=2))
    assert not spoilt
    expected = begin(aux_weight=0.0)
    stream = fit(expected)
    next(stream)
    expected.setbacks = 2
    list(stream)
    assert_same(training, expected)


@pytest.mark.parametrize("step", [4, 5])
def test_a_gradient_that_is_no_number_is_that_steps_fault(step: int) -> None:
    """The loss is a number, in a step that is reported (5) and in one that is not."""
    training = begin()

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        plain = cross_entropy(logits, target)
        return plain + 0 * (logits.flatten()[0] * 0).sqrt() if training.step == step else plain

    training.loss = loss
    stream = fit(training)
    next(stream)
    with pytest.raises(Diverged, match=rf"loss \d.*, norm of its gradient nan at step {step},"):
        next(stream)


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_a_batch_in_parts_is_the_batch_but_for_batch_norm(mixup: float) -> None:
    """Without batch norm and dropout, gradients of parts add up to the whole's, each by its labelled pixels: those of
    a crop and, with mixup, of the one that is mixed into it, one of which has none."""

    class OneUnlabelled(Scenes):
        def __getitem__(self, scene: int) -> tuple[np.ndarray, np.ndarray]:
            image, label = super().__getitem__(scene)
            return image, label if scene else np.full_like(label, 255)

    results = {}
    for parts in (1, 2, 3):
        net = Net()
        torch.manual_seed(3)
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.3)
        net.body[1], net.body[3] = nn.Identity(), nn.Identity()
        training = begin(net=net, parts=parts, mixup=mixup, optimizer="sgd(momentum=0)", clip=None, aux_weight=0.0)
        results[parts] = ([report.loss for report in fit(training, OneUnlabelled())], training)
    for parts in (2, 3):
        assert results[parts][0] == pytest.approx(results[1][0], rel=1e-5)
        for mine, whole in zip(results[parts][1].net.parameters(), results[1][1].net.parameters(), strict=True):
            torch.testing.assert_close(mine, whole, rtol=1e-4, atol=1e-6)


def test_a_batch_that_does_not_fit_goes_through_in_parts_as_if_it_always_had() -> None:
    class Large(Net):
        most = 1

        def forward(self, image: Tensor) -> Tensor | list[Tensor]:
            answer = super().forward(image)
            if len(image) > self.most:
                torch.empty(1 << 50, dtype=torch.uint8)
            return answer

    net = Large()
    training, divided = begin(net=copy.deepcopy(net)), begin(net=net, parts=4)
    reports = list(fit(training))
    assert {report.parts for report in reports} == {4}
    list(fit(divided))
    assert_same(training, divided)
    resumed = begin(net=Large())
    resumed.load(training.state())
    assert resumed.parts == 4
    net = Large()
    net.most = 0
    with pytest.raises(StageFailure, match=r"out of memory on cpu with one crop at a time: start with train\.parts 4"):
        list(fit(begin(net=net)))


def test_a_crop_that_is_too_small_for_batch_norm_is_one_line() -> None:
    class Deep(Net):
        def forward(self, image: Tensor) -> Tensor | list[Tensor]:
            return self.head(self.body(image.mean(dim=(2, 3), keepdim=True)))

    with pytest.raises(
        StageFailure, match=r"one crop of \d+x\d+ at a time is too small for batch norm: raise train\.b"
    ):
        list(fit(begin(net=Deep(), parts=4)))


def test_memory_that_runs_out_elsewhere_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object, **named: object) -> None:
        torch.empty(1 << 50, dtype=torch.uint8)

    monkeypatch.setattr(torch.optim.AdamW, "step", full)
    with pytest.raises(StageFailure, match="out of memory on cpu in the optimizer's step: take a lighter network"):
        list(fit(begin()))
    monkeypatch.setattr(Net, "forward", full)
    with pytest.raises(StageFailure, match=r"out of memory on cpu with a scene of \d+x\d+, .*: lower train\.long_side"):
        engine.evaluate(Net(), Scenes(), classes=4)


def test_mixup_mixes_images_and_losses_alike() -> None:
    """One step written out: image and loss by the same share, drawn from (seed, step)."""
    training, twin = (begin(total_steps=1, channels_last=False, mixup=0.4) for _ in range(2))
    seen: list[Tensor] = []
    targets: list[Tensor] = []
    training.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    training.loss = lambda logits, target: (targets.append(target), cross_entropy(logits, target))[1]
    [report] = fit(training)
    plain: list[Tensor] = []
    twin.mixup = 0.0
    twin.net.register_forward_pre_hook(lambda _, inputs: plain.append(inputs[0].clone()))
    list(fit(twin))
    share = float(np.random.default_rng((11, 0)).beta(0.4, 0.4))
    torch.testing.assert_close(seen[0], share * plain[0] + (1 - share) * plain[0].roll(1, 0))
    assert torch.equal(targets[2], targets[0].roll(1, 0)) and not torch.equal(targets[2], targets[0])
    net = begin(total_steps=1, channels_last=False).net.train()
    torch.manual_seed(int(np.random.SeedSequence((11, 0)).generate_state(1)[0]))
    main, aux = net(seen[0])
    one, other = (cross_entropy(main, y) + 0.4 * cross_entropy(aux, y[:, 1::2, 1::2]) for y in (targets[0], targets[2]))
    assert report.loss == pytest.approx((share * one + (1 - share) * other).item(), rel=1e-5)


def test_memory_is_in_large_pages_after_the_first_step_and_at_each_report(monkeypatch: pytest.MonkeyPatch) -> None:
    training, seen = begin(total_steps=8), []
    monkeypatch.setattr(memory, "large_pages", lambda: seen.append(training.step))
    reports = [report.step for report in fit(training)]
    assert reports == [3, 6, 8]
    assert seen == [1, 3, 6, 8]


def test_a_gradient_is_clipped() -> None:
    free, short = (
        begin(total_steps=1, optimizer="sgd(momentum=0)", weight_decay=0.0, clip=clip) for clip in (None, 0.01)
    )
    before = [parameter.detach().clone() for parameter in free.net.parameters()]
    moved = []
    for training in (free, short):
        next(fit(training))
        steps = [(now.detach() - was).norm() for now, was in zip(training.net.parameters(), before, strict=True)]
        moved.append(float(torch.stack(steps).norm()))
    assert moved[1] == pytest.approx(0.02 * 0.01, rel=1e-3)
    assert moved[0] > 10 * moved[1]


@pytest.mark.parametrize("name", ["sgd(momentum=2)", "sgd(momentum=-1)", "rmsprop(alpha=2)", "rmsprop(momentum=5)"])
def test_a_momentum_out_of_its_range_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"`(momentum|alpha)` \(=-?\d\) must be from 0 to 0\.9999"):
        optimizers.build(name, Net(), weight_decay=0.0)


@pytest.mark.parametrize("optimizer", ["adamw", "adam(beta1=0.8)", "sgd(momentum=0.8, nesterov=1)", "rmsprop"])
def test_every_optimizer_learns_and_resumes(optimizer: str) -> None:
    schedule = one_cycle(low_momentum=0.85, high_momentum=0.95)
    unbroken, resumed = (begin(optimizer=optimizer, schedule=schedule) for _ in range(2))
    reports = list(fit(unbroken))
    assert reports[-1].loss < reports[0].loss
    stream, file = fit(resumed), io.BytesIO()
    next(stream)
    torch.save(resumed.state(), file)
    stream.close()
    file.seek(0)
    resumed = begin(optimizer=optimizer, schedule=schedule)
    resumed.load(torch.load(file, weights_only=True))
    list(fit(resumed))
    assert_same(resumed, unbroken)
    group = unbroken.optimizer.param_groups[0]
    assert (group["betas"][0] if "betas" in group else group["momentum"]) == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize(
    ("text", "torchs"),
    [
        ("adamw", partial(torch.optim.AdamW, betas=(0.9, 0.999))),
        ("adamw(beta1=0.7, beta2=0.9)", partial(torch.optim.AdamW, betas=(0.7, 0.9))),
        ("adam(beta1=0.8, beta2=0.95)", partial(torch.optim.Adam, betas=(0.8, 0.95))),
        ("sgd", partial(torch.optim.SGD, momentum=0.9)),
        ("sgd(momentum=0.6, nesterov=1)", partial(torch.optim.SGD, momentum=0.6, nesterov=True)),
        ("rmsprop", partial(torch.optim.RMSprop, alpha=0.99, momentum=0.9)),
        ("rmsprop(alpha=0.8, momentum=0.3)", partial(torch.optim.RMSprop, alpha=0.8, momentum=0.3)),
    ],
)
def test_an_optimizer_is_torchs_with_these_settings(text: str, torchs: partial[torch.optim.Optimizer]) -> None:
    ours, its = (nn.Linear(4, 3, bias=False) for _ in range(2))
    its.load_state_dict(ours.state_dict())
    mine = optimizers.build(text, ours, weight_decay=0.1)
    mine.param_groups[0]["lr"] = 0.03
    expected = torchs(its.parameters(), lr=0.03, weight_decay=0.1)
    for _ in range(4):
        gradient = torch.randn(3, 4)
        for net, optimizer in ((ours, mine), (its, expected)):
            net.weight.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(ours.weight, its.weight)


@pytest.mark.parametrize("channels_last", [True, False])
def test_images_and_weights_lie_as_asked(channels_last: bool) -> None:
    training, seen = begin(total_steps=1, channels_last=channels_last), []
    training.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    list(fit(training))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert seen[0].is_contiguous(memory_format=layout)
    assert training.net.body[0].weight.is_contiguous(memory_format=layout)  # type: ignore[union-attr, operator, index]


def test_an_encoder_learns_more_slowly() -> None:
    net = Net()
    training = begin(net=net, encoder=list(net.body.parameters()), encoder_rate=0.1, schedule=Schedule(lambda _: 1.0))
    next(fit(training, every_steps=1))
    slow = {id(p) for p in net.body.parameters()}
    for group in training.optimizer.param_groups:
        inside = {id(p) in slow for p in group["params"]}
        assert len(inside) == 1
        assert group["lr"] == pytest.approx(0.002 if inside == {True} else 0.02)
        assert group["weight_decay"] == (0.01 if group["params"][0].ndim >= 2 else 0)


@pytest.mark.parametrize("share", [0.1, 10])
def test_the_rate_that_is_reported_is_not_the_encoders(share: float) -> None:
    net = Net()
    training = begin(net=net, encoder=list(net.body.parameters()), encoder_rate=share, schedule=Schedule(lambda _: 1.0))
    assert next(fit(training, every_steps=1)).learning_rate == pytest.approx(0.02)


def test_a_batch_of_void_trains_nothing_and_breaks_nothing() -> None:
    pack = Scenes()
    pack.pairs = [(image, np.full_like(label, 255)) for image, label in pack.pairs]
    training = begin(total_steps=2)
    training.loss = losses.build("cross_entropy", None)
    assert [report.loss for report in fit(training, pack)] == [0.0]


def test_overfits_four_scenes_in_seconds() -> None:
    pack = Scenes()
    training = begin(total_steps=60)
    reports = list(fit(training, pack, every_steps=20))
    assert reports[-1].loss < 0.5 * reports[0].loss
    matrix = engine.evaluate(training.ema.net, pack, classes=3).sum(axis=0)
    assert np.diag(matrix).sum() / matrix.sum() > 0.97


@pytest.mark.filterwarnings("ignore:.*Function'> should not be instantiated:DeprecationWarning")  # torch's own tracer
def test_compiled_training_is_the_same_through_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as tracing and gradients go: what a compiler makes of them is its own affair, and takes minutes."""
    plan = Plan((Phase(3, 8, (16, 32)), Phase(3, 2, CROP)))
    found = []
    for compiled in (False, True):
        torch.manual_seed(2)
        net = nn.Sequential(
            *[nn.Conv2d(3, 4, 3, padding=1, bias=False), BatchNorm2d(4), PReLU(4), DepthwiseConv2d(4, 8, 3, stride=2)],
            *[Dropout(0.1), DepthwiseConv2d(8, 8, 3, dilation=2), BiasedConvTranspose2d(8, 3, 2, stride=2)],
        )
        with monkeypatch.context() as patched:
            patched.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
            training = begin(6, net=net, compiled=compiled)
        assert (training.forward is net) != compiled
        list(fit(training, plan=plan))
        found.append(training.net.state_dict())
    plain, traced = found
    assert plain.keys() == traced.keys(), "a checkpoint does not know that its network was compiled"
    for name in plain:
        torch.testing.assert_close(traced[name], plain[name], rtol=1e-3, atol=5e-5)  # untraced, kernels round otherwise


def test_compiled_training_below_float32_is_refused_on_a_cpu() -> None:
    """torch 2.13 compiles networks there whose first layers get no gradient, and says nothing."""
    with pytest.raises(UserError, match=r"^train\.compile \(params\.yaml\) is true in bfloat16 on a CPU"):
        begin(6, compiled=True, precision="bfloat16")


# EMA


def test_ema_is_the_naive_loop() -> None:
    torch.manual_seed(0)
    net = Net()
    average = EMA(net, 0.7)
    naive = {name: value.detach().clone().double() for name, value in net.named_parameters()}
    for step in range(40):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.randn_like(parameter))
        net.train()(torch.randn(2, 3, 8, 8))  # moves BatchNorm's statistics
        average.update(net, step)
        decay = min(0.7, (1 + step) / (10 + step))
        for name, value in net.named_parameters():
            naive[name] = decay * naive[name] + (1 - decay) * value.detach().double()
    for name, value in average.net.named_parameters():
        torch.testing.assert_close(value.double(), naive[name], rtol=1e-4, atol=1e-5)
        assert not value.requires_grad
    for mine, its in zip(average.net.buffers(), net.buffers(), strict=True):
        assert torch.equal(mine, its) and mine is not its
    assert not average.net.training


def test_ema_of_decay_0_is_the_network_and_1_is_refused() -> None:
    net = Net()
    average = EMA(net, 0)
    nn.init.ones_(net.head.weight)
    average.update(net, 100)
    assert torch.equal(average.net.head.weight, net.head.weight)
    with pytest.raises(ValueError, match=r"`decay` \(=1\) must be in \[0, 1\)"):
        EMA(net, 1)


# Evaluation


def test_evaluate_is_the_naive_loop_scene_by_scene() -> None:
    pack, net = Scenes(3), begin().net
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    matrices = engine.evaluate(net, pack, classes=3)
    assert matrices.shape == (3, 3, 3) and matrices.dtype == np.int64
    assert net.training, "the mode is put back"
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    net.eval()
    for (image, label), matrix in zip(pack.pairs, matrices, strict=True):
        pixels = (torch.tensor(image / 255) - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
        predicted = net(pixels.permute(2, 0, 1)[None].float())[0].argmax(0).numpy()
        naive = np.zeros((3, 3), dtype=np.int64)
        for truth, guess in zip(label.ravel(), predicted.ravel(), strict=True):
            if truth != 255:
                naive[truth, guess] += 1
        assert np.abs(naive - matrix).sum() <= 2  # a tie may round the other way
        assert matrix.sum() == (label != 255).sum()


def test_evaluate_judges_at_the_labels_own_size() -> None:
    pack = Scenes(2, size=(32, 64), label_size=(64, 128))
    matrices = engine.evaluate(begin().net, pack, classes=3)
    assert [matrix.sum() for matrix in matrices] == [(label != 255).sum() for _, label in pack.pairs]


# Precision


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ({}, torch.float32),
        ({"avx2": True, "avx512_f": True, "amx_tile": True}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
    ],
)
def test_auto_on_a_cpu_follows_the_hardware(
    has: dict[str, bool], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert precisions.resolve("auto", "cpu") == expected


def test_auto_on_a_gpu_is_bf16_where_it_has_it_else_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    for native, expected in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True, n=native: n)
        assert precisions.resolve("auto", "cuda") == expected


def test_a_named_precision_is_taken_at_its_word() -> None:
    assert precisions.resolve("bfloat16", "cpu") == torch.bfloat16
    assert precisions.resolve("float16", "cpu") == torch.float16
    assert precisions.resolve("float32", "cuda") == torch.float32


def test_the_names_cover_what_torch_really_calls_them() -> None:
    """The probe's keys exist where torch reports x86 features at all; else "auto" would silently mean float32."""
    has = torch.cpu.get_capabilities()
    if has.get("architecture") == "x86_64":
        assert {"amx_bf16", "avx512_bf16"} <= has.keys()


def test_float16_resumes_with_its_gradient_scale() -> None:
    unbroken, killed, resumed = (begin(precision="float16") for _ in range(3))
    for training in (unbroken, killed, resumed):
        assert training.scaler.is_enabled()
        training.scaler.load_state_dict(training.scaler.state_dict() | {"growth_interval": 2})
    list(fit(unbroken))
    next(fit(killed))
    resumed.load(killed.state())
    list(fit(resumed))
    assert_same(unbroken, resumed)
    assert unbroken.scaler.get_scale() != begin(precision="float16").scaler.get_scale(), (
        "the scale moved, so it had to be saved"
    )


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "rmsprop"])
def test_a_first_step_that_the_gradient_scaler_leaves_out_leaves_nothing(
    optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However memory happens to be found: here full of what is no number."""
    empty_like = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda *given, **how: empty_like(*given, **how).fill_(float("nan")))
    training = begin(optimizer=optimizer, precision="float16", total_steps=40)
    before = copy.deepcopy(training.net.state_dict())
    training.scaler.load_state_dict(training.scaler.state_dict() | {"scale": 2.0**40})
    reports = fit(training, every_steps=1)
    assert next(reports).loss > 0
    parameters = dict(training.net.named_parameters())
    assert all(torch.equal(parameters[name], before[name]) for name in parameters), "the step was left out"
    last = [report.loss for report in reports]
    assert last[-1] < last[0]


def test_a_float16_gradient_that_never_is_a_number_is_noticed() -> None:
    """The scaler leaves such steps out without a word: the loss stays a number, and the weights where they are."""

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(logits, target) + 0 * (logits.flatten()[0] * 0).sqrt()

    training = begin(total_steps=60, loss=loss, precision="float16")
    with pytest.raises(Diverged, match=r"loss \d.*, norm of its gradient inf at step 3\d,"):
        list(fit(training))


def test_windows_cover_a_side_evenly_and_overlap() -> None:
    assert evaluation.places(100, 100, 0.3) == evaluation.places(60, 100, 0.3) == [0]
    for side, window, overlap in ((101, 100, 0.3), (500, 100, 0.0), (500, 128, 0.34), (1024, 257, 0.5)):
        begins = evaluation.places(side, window, overlap)
        assert begins[0] == 0 and begins[-1] == side - window
        assert all(0 < b - a <= window * (1 - overlap) + 1 for a, b in pairwise(begins))


def test_a_network_that_sees_pixels_alone_says_the_same_through_windows() -> None:
    torch.manual_seed(0)
    net, image = nn.Conv2d(3, 4, 1), torch.randn(1, 3, 37, 53)
    with torch.inference_mode():
        whole = net(image)
        windows = evaluation.said(net, image, Views(window=(16, 20)))
        torch.testing.assert_close(windows, whole)
        tall = evaluation.said(net, image, Views(window=(64, 20)))
        torch.testing.assert_close(tall, whole)


def test_flip_and_scales_are_the_mean_of_softmax_scores() -> None:
    torch.manual_seed(0)
    net, image = nn.Conv2d(3, 4, 3, padding=1), torch.randn(1, 3, 24, 32)
    with torch.inference_mode():
        both = (net(image).softmax(1) + net(image.flip(3)).flip(3).softmax(1)) / 2
        torch.testing.assert_close(evaluation.said(net, image, Views(flip=True)), both)
        large = F.interpolate(net(F.interpolate(image, (36, 48), mode="bilinear")), (24, 32), mode="bilinear").softmax(
            1
        )
        mixed = evaluation.said(net, image, Views(scales=(1.0, 1.5)))
        torch.testing.assert_close(mixed, (net(image).softmax(1) + large) / 2)
        assert mixed.argmax(1).ne(net(image).argmax(1)).float().mean() < 0.5


@pytest.mark.parametrize("views", [Views(scales=(0.75, 1.0)), Views(flip=True), Views(window=(24, 48))])
def test_evaluate_takes_the_views_that_it_is_told(views: Views) -> None:
    training = begin()
    list(fit(training))
    plain, viewed = (engine.evaluate(training.net, Scenes(), classes=3, views=each) for each in (Views(), views))
    assert plain.sum() == viewed.sum() and (plain != viewed).any()


@pytest.mark.parametrize(("precision", "dtype"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_autocast_trains_and_keeps_float32_weights(precision: str, dtype: torch.dtype) -> None:
    training = begin(total_steps=4, precision=precision)
    inside: list[torch.dtype] = []
    training.net.head.register_forward_hook(lambda module, inputs, output: inside.append(output.dtype))
    assert np.isfinite(next(fit(training, every_steps=4)).loss)
    assert set(inside) == {dtype}
    assert {p.dtype for p in training.net.parameters()} == {torch.float32}


def test_large_labels_are_answered_a_few_classes_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mapillary's 66 classes at 20 megapixels do not fit: the same ids come of any share that does."""
    module = sys.modules["roadseg.engine.evaluate"]  # the package's `evaluate` is the function
    logits = torch.randn(1, 7, 9, 11, generator=torch.Generator().manual_seed(0))
    logits[:, 3] = logits[:, 5]  # a tie: the first class wins
    size = (40, 60)
    whole = F.interpolate(logits, size=size, mode="bilinear", align_corners=False).argmax(dim=1)[0]
    for at_once in (1, 2 * 40 * 60, 5 * 40 * 60, 1 << 30):
        monkeypatch.setattr(module, "AT_ONCE", at_once)
        assert torch.equal(module.ids_at(logits, size).long(), whole)


def test_the_main_output_is_enlarged_heads_are_not_and_one_of_a_single_channel_is_held_against_boundaries() -> None:
    target = torch.zeros(1, 8, 8, dtype=torch.int64)
    target[:, :, 4:] = 2
    loss = losses.build("cross_entropy", None)
    main, aux, detail = torch.randn(1, 3, 2, 4), torch.randn(1, 3, 4, 4), torch.randn(1, 1, 2, 2)
    expected = loss(F.interpolate(main, size=(8, 8), mode="bilinear"), target)
    expected += 0.4 * (loss(aux, target[:, 1::2, 1::2]) + losses.boundary(detail, target))
    torch.testing.assert_close(_weigh(loss, [main, aux, detail], target, 0.4), expected)
