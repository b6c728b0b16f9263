"""Distillation against loops in float64, and the step that a teacher takes part in."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from roadseg import distillation, engine, labels, nets
from roadseg.config import Distil
from roadseg.distillation import DISTILLATIONS
from roadseg.engine import Teacher
from roadseg.engine.fit import _backward, _imitate
from roadseg.errors import UserError
from roadseg.stages import teacher
from tests.test_engine import Net, Scenes, begin
from tests.test_engine import fit as engine_fit

EVERY = pytest.mark.parametrize("name", DISTILLATIONS)
CLASSES = 3
CAMVID = labels.load("camvid11").classes


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two networks' logits of two scenes of 4x5, a third of the pixels ignored."""
    random = np.random.default_rng(seed)
    student, other = (
        torch.from_numpy(random.normal(scale=3, size=(2, CLASSES, 4, 5)).astype(np.float32)) for _ in range(2)
    )
    target = random.choice([0, 2, 255], size=(2, 4, 5))
    return student, other, torch.from_numpy(target)


def softmax(values: list[float], temperature: float) -> list[float]:
    exponents = [math.exp(value / temperature) for value in values]
    return [one / sum(exponents) for one in exponents]


def divergence(teachers: list[float], students: list[float], temperature: float) -> float:
    pairs = zip(softmax(teachers, temperature), softmax(students, temperature), strict=True)
    return sum(p * math.log(p / q) for p, q in pairs)


def naive(name: str, student: torch.Tensor, other: torch.Tensor, target: torch.Tensor, temperature: float) -> float:
    s, t = student.double().numpy(), other.double().numpy()
    pixels = [(b, y, x) for b, y, x in np.ndindex(*target.shape) if target[b, y, x] != 255]
    if name == "logit":
        terms = [divergence(t[b, :, y, x].tolist(), s[b, :, y, x].tolist(), temperature) for b, y, x in pixels]
        return temperature**2 * sum(terms) / len(terms)
    terms = []
    for b in range(2):
        inside = [(y, x) for scene, y, x in pixels if scene == b]
        if not inside:
            continue
        for c in range(CLASSES):
            theirs, mine = ([one[b, c, y, x] for y, x in inside] for one in (t, s))
            terms.append(divergence(theirs, mine, temperature))
    return temperature**2 * sum(terms) / len(terms)


@EVERY
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_it_is_what_a_loop_says(name: str, temperature: float) -> None:
    for seed in range(3):
        given = batch(seed)
        value = distillation.build(name, temperature)(*given).item()
        assert value == pytest.approx(naive(name, *given, temperature), rel=1e-5)


@EVERY
def test_a_scene_without_labels_counts_nothing(name: str) -> None:
    student, other, target = batch()
    target[1] = 255
    student.requires_grad_(True)
    value = distillation.build(name, 2.0)(student, other, target)
    assert value.item() == pytest.approx(naive(name, student.detach(), other, target, 2.0), rel=1e-5)
    target[:] = 255
    value = distillation.build(name, 2.0)(student, other, target)
    value.backward()
    assert value.item() == 0
    assert torch.equal(student.grad, torch.zeros_like(student))


@EVERY
def test_it_is_least_where_both_say_the_same_and_the_teacher_gets_no_gradient(name: str) -> None:
    student, other, target = batch()
    student.requires_grad_(True)
    other.requires_grad_(True)
    loss = distillation.build(name, 4.0)
    assert loss(other.detach(), other, target).item() == pytest.approx(0, abs=1e-6)
    loss(student, other, target).backward()
    assert other.grad is None
    ignored = (target == 255)[:, None].expand_as(student)
    assert student.grad[ignored].abs().max() == 0
    assert student.grad[~ignored].abs().min() > 0


@EVERY
def test_half_precision_says_nearly_the_same(name: str) -> None:
    student, other, target = batch()
    loss = distillation.build(name, 4.0)
    half = loss(student.bfloat16(), other.bfloat16(), target)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(loss(student, other, target).item(), rel=0.05)


def test_an_unknown_name_is_one_line() -> None:
    with pytest.raises(UserError, match=r"no distillation 'x': choose one of channel, logit"):
        distillation.build("x", 1.0)


@EVERY
def test_a_students_smaller_logits_are_enlarged_to_the_teachers(name: str) -> None:
    torch.manual_seed(1)
    net, loss = Net().eval(), distillation.build(name, 2.0)
    image, main, target = torch.randn(2, 3, 32, 64), torch.randn(2, 3, 16, 16), torch.randint(0, 3, (2, 32, 64))
    training = begin(1, teacher=Teacher(net, loss, 1.0))
    assert training.teacher
    found = _imitate(training, training.teacher, image, [main], target)
    large = functional.interpolate(main, size=(32, 64), mode="bilinear")
    torch.testing.assert_close(found, loss(large, net(image), target))


def test_a_teachers_answers_alone_teach() -> None:
    """The labels' own loss is switched off: what the student learns, it has from the teacher."""
    torch.manual_seed(1)
    other = Net()
    list(engine_fit(begin(60, net=other)))
    before = {key: value.clone() for key, value in other.state_dict().items()}
    scenes = Scenes()
    agreements = {}
    for name in (None, *DISTILLATIONS):
        imitated = Teacher(other, distillation.build(name, 2.0), 3.0) if name else None
        torch.manual_seed(2)
        student = begin(60, net=Net(), teacher=imitated, aux_weight=0.0, loss=lambda logits, target: 0 * logits.sum())
        list(engine_fit(student))
        mine, its = (engine.evaluate(net.eval(), scenes, classes=3, device="cpu") for net in (student.net, other))
        agreements[name] = np.trace(mine.sum(0)) / np.trace(its.sum(0))
    assert min(agreements["channel"], agreements["logit"]) > 0.9 > agreements[None] + 0.1, agreements
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())


def test_of_mixed_images_what_either_ignores_is_not_imitated() -> None:
    asked = []

    def imitation(student: torch.Tensor, other: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        asked.append(target)
        return 0 * student.sum()

    labels_BHW = torch.ones(2, 32, 64, dtype=torch.uint8)
    labels_BHW[0, :, :8], labels_BHW[1, :, 56:] = 255, 255
    training = begin(1, teacher=Teacher(Net(), imitation, 1.0), mixup=0.2)
    _backward(training, torch.zeros(2, 32, 64, 3, dtype=torch.uint8), labels_BHW)
    (target,) = asked
    assert (target[:, :, :8] == 255).all() and (target[:, :, 56:] == 255).all() and (target[:, :, 8:56] == 1).all()


def exported(folder: Path, **changes: object) -> Path:
    """A Fast-SCNN as export leaves it."""
    space = labels.load("camvid11")
    torch.manual_seed(3)
    save_file(nets.build("fastscnn", 11).state_dict(), folder / "weights.safetensors")
    recipe = {"network": "fastscnn", "classes": list(space.classes), "space": space.name} | changes
    (folder / "recipe.json").write_text(json.dumps(recipe))
    return folder / "weights.safetensors"


def test_what_export_left_teaches(tmp_path: Path) -> None:
    path = exported(tmp_path)
    found = teacher.load(Distil(teacher=str(path), weight=2.0), labels.load("camvid11"))
    torch.manual_seed(3)
    weights = nets.build("fastscnn", 11).state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in found.net.state_dict().items())
    assert found.weight == 2.0
    assert teacher.digest(Distil(teacher=str(path))) != teacher.digest(None)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"classes": ["road"]},
            r"knows the 1 classes of camvid11, and this run trains on camvid11's 11: class 0 is road there and .* here",
        ),
        (
            {"classes": [*CAMVID[:3], "x", *CAMVID[4:]]},
            rf"camvid11's 11: class 3 is x there and {CAMVID[3]} here: a teach",
        ),
        ({"classes": [*CAMVID, "y"]}, r"knows the 12 classes of .*'s 11: class 11 is y there and nothing here"),
        ({"classes": None}, r"no recipe\.json of ours lies beside it \(.*must have network, a name, and classes"),
        ({"classes": "road"}, r"no recipe\.json of ours lies beside it"),
        ({"network": ["enet"]}, r"no recipe\.json of ours lies beside it"),
        ({"network": "enet"}, r"does not hold the weights of enet"),
        ({"network": "nothing"}, r"there is no network 'nothing'"),
    ],
)
def test_a_teacher_that_does_not_fit_is_one_line(tmp_path: Path, changes: dict, says: str) -> None:
    path = exported(tmp_path, **changes)
    with pytest.raises(UserError, match=says) as caught:
        teacher.load(Distil(teacher=str(path)), labels.load("camvid11"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "null", "{}", "{"])
def test_a_teacher_with_a_malformed_recipe_is_one_line(tmp_path: Path, text: str) -> None:
    path = exported(tmp_path)
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(UserError, match=r"teacher\): no recipe\.json of ours lies beside it \(.*copy export") as caught:
        teacher.load(Distil(teacher=str(path)), labels.load("camvid11"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda weight: weight.fill_(torch.nan), "holds values that are not finite"),
        (lambda weight: weight.to(torch.int8), "is int8 and must be float32"),
    ],
)
def test_a_teacher_with_unusable_numbers_is_one_line(tmp_path: Path, harm, says: str) -> None:
    path = exported(tmp_path)
    weights = load_file(path)
    name = next(name for name, weight in weights.items() if weight.ndim > 1)
    save_file(weights | {name: harm(weights[name])}, path)
    with pytest.raises(UserError, match=rf"distil\.teacher\): {name} {says}"):
        teacher.load(Distil(teacher=str(path)), labels.load("camvid11"))


def test_a_teacher_with_a_weight_too_many_is_refused(tmp_path: Path) -> None:
    path = exported(tmp_path)
    save_file(load_file(path) | {"extra": torch.ones(2)}, path)
    with pytest.raises(UserError, match=r"does not hold the weights of fastscnn: .*extra"):
        teacher.load(Distil(teacher=str(path)), labels.load("camvid11"))


def test_a_teachers_path_is_of_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, worktree = tmp_path / "home", tmp_path / "worktree"
    home.mkdir()
    worktree.mkdir()
    exported(home)
    monkeypatch.chdir(worktree)
    monkeypatch.setenv("ROADSEG_HOME", str(home))
    assert teacher.load(Distil(teacher="weights.safetensors"), labels.load("camvid11"))


def test_a_teacher_without_a_recipe_is_one_line(tmp_path: Path) -> None:
    path = exported(tmp_path)
    (tmp_path / "recipe.json").unlink()
    with pytest.raises(UserError, match=r"no recipe\.json of ours lies beside it"):
        teacher.load(Distil(teacher=str(path)), labels.load("camvid11"))
    with pytest.raises(UserError, match=r"distil\.teacher \(='imagenet'\) must be a \.safetensors file or models:"):
        teacher.load(Distil(teacher="imagenet"), labels.load("camvid11"))
