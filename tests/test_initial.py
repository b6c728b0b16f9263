"""What a network starts from, and that everything that was not loaded is said."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from roadseg import nets
from roadseg.errors import UserError
from roadseg.nets import backbones, initial

CLASSES = [f"class {number}" for number in range(11)]


def net(name: str = "fastscnn", classes: int = 11, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return nets.build(name, classes)


def test_random_changes_nothing() -> None:
    one, other = net(), net()
    assert initial.load(one, "random") == []
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


def test_a_file_of_the_same_classes_is_loaded_whole(tmp_path: Path) -> None:
    trained, fresh = net(seed=1), net(seed=2)
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    assert initial.load(fresh, str(tmp_path / "w.safetensors")) == []
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in fresh.state_dict().items())


def test_of_another_label_space_only_the_classifiers_start_anew_and_all_are_named(tmp_path: Path) -> None:
    trained, fresh, untouched = net(classes=19, seed=1), net(classes=11, seed=2), net(classes=11, seed=2)
    save_file(trained.state_dict() | {"extra": torch.ones(3)}, tmp_path / "w.safetensors")
    lines = initial.load(fresh, str(tmp_path / "w.safetensors"))
    classifiers = {key for key, value in fresh.state_dict().items() if value.ndim and value.shape[0] == 11}
    assert len(classifiers) == 6, "weight and bias of the main classifier and of two heads"
    assert {line.split(":")[0] for line in lines} == classifiers | {"extra"}
    assert "classifier.3.bias: (19,) in the file, (11,) here, starts at random" in lines
    assert "extra: in the file, has no place here" in lines
    for key, value in fresh.state_dict().items():
        expected = untouched if key in classifiers else trained
        assert torch.equal(value, expected.state_dict()[key]), key


@pytest.mark.parametrize(("named", "anew"), [(CLASSES[::-1], 6), (CLASSES, 0), (None, 0)])
def test_classifiers_of_as_many_other_classes_start_anew(tmp_path: Path, named: list[str] | None, anew: int) -> None:
    """As many classes in another order fit by shape, and would be wrong: the recipe beside the file names them."""
    trained, fresh = net(seed=1), net(seed=2)
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "recipe.json").write_text(json.dumps({"network": "fastscnn", "classes": named}))
    lines = initial.load(fresh, str(tmp_path / "w.safetensors"), CLASSES)
    assert len(lines) == anew
    assert all(line.endswith(": of other classes in the file, starts at random") for line in lines)
    same = {key for key, value in fresh.state_dict().items() if torch.equal(value, trained.state_dict()[key])}
    assert len(fresh.state_dict()) - len(same) == anew / 2, "biases start at zero, in both"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("models/x.pt", r"train\.initial \(='models/x\.pt'\) must be random, imagenet, imagenet:FOLDER, a \.saf"),
        ("gone.safetensors", r"gone\.safetensors \(params\.yaml, train\.initial\) is not there"),
        ("text.safetensors", r"text\.safetensors \(train\.initial\) is no safetensors file"),
        ("other.safetensors", r"0 of \d+ weights of FastSCNN are in the file, fewer than half: it is of another net"),
        ("models:/../../x/1", r"params\.yaml: train\.initial: 'models:/\.\./\.\./x/1' must be models:/NAME/VERSION"),
        ("models:/x/1", r"x/1/weights\.safetensors \(params\.yaml, train\.initial\) is not there"),
        ("imagenet:", r"\(='imagenet:'\) must be random"),
        ("imagenet", r"FastSCNN has no backbone with published weights"),
    ],
)
def test_a_wrong_source_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, says: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.safetensors").write_text("no")
    save_file({"somewhere.weight": torch.ones(2, 2)}, "other.safetensors")
    with pytest.raises(UserError, match=says) as caught:
        initial.load(net(), source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("theirs", ["pidnet_s", "bisenetv2"])
def test_weights_of_another_network_are_refused_and_it_is_named(tmp_path: Path, theirs: str) -> None:
    """Some names and shapes of any two networks agree; PIDNet's share two with Fast-SCNN."""
    save_file(net(theirs).state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "recipe.json").write_text(json.dumps({"network": theirs}))
    fresh, untouched = net(), net().state_dict()
    with pytest.raises(UserError, match=rf"\d of \d+ weights of FastSCNN .*fewer than half: it is of {theirs}; name"):
        initial.load(fresh, str(tmp_path / "w.safetensors"))
    assert all(torch.equal(value, untouched[key]) for key, value in fresh.state_dict().items())
    (tmp_path / "recipe.json").write_text("[]")
    with pytest.raises(UserError, match="it is of another network"):
        initial.load(fresh, str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("missing", [0, 1])
def test_half_of_the_weights_is_enough_and_one_less_is_not(tmp_path: Path, missing: int) -> None:
    trained = net(seed=1).state_dict()
    names = [name for name, value in trained.items() if value.ndim]
    kept = names[: (len(names) + 1) // 2 - missing]
    save_file({name: trained[name] for name in kept}, tmp_path / "w.safetensors")
    if missing:
        with pytest.raises(UserError, match=rf"{len(kept)} of {len(names)} weights of FastSCNN"):
            initial.load(net(), str(tmp_path / "w.safetensors"))
    else:
        assert len(initial.load(net(), str(tmp_path / "w.safetensors"))) == len(trained) - len(kept)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (
            lambda value: torch.zeros_like(value, dtype=torch.int8),
            r"is int8 and must be float32: name weights that exp",
        ),
        (lambda value: torch.full_like(value, torch.nan), "holds values that are not finite"),
        (lambda value: torch.full_like(value, 1e300, dtype=torch.float64), "holds values that are not finite"),
    ],
)
def test_numbers_that_nothing_can_start_from_are_refused_by_name(tmp_path: Path, harm, says: str) -> None:
    trained = net(seed=1).state_dict()
    name = next(iter(trained))
    save_file(trained | {name: harm(trained[name])}, tmp_path / "w.safetensors")
    fresh, untouched = net(), net().state_dict()
    with pytest.raises(UserError, match=rf"w\.safetensors \(train\.initial\): {name} {says}"):
        initial.load(fresh, str(tmp_path / "w.safetensors"))
    assert all(torch.equal(value, untouched[key]) for key, value in fresh.state_dict().items())


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_a_cast_is_said_in_one_line(tmp_path: Path, kind: str) -> None:
    trained, fresh = net(seed=1).state_dict(), net(seed=2)
    half = {
        key: value.to(getattr(torch, kind)) if value.is_floating_point() else value for key, value in trained.items()
    }
    save_file(half, tmp_path / "w.safetensors")
    count = sum(value.is_floating_point() for value in trained.values())
    assert initial.load(fresh, str(tmp_path / "w.safetensors")) == [
        f"{count} weights: {kind} in the file, cast to float32"
    ]
    for key, value in fresh.state_dict().items():
        assert value.dtype == trained[key].dtype and torch.equal(value, half[key].to(value.dtype)), key


def test_paths_are_of_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retrain's git worktree holds no weights: what a setting names lies in the project that it came from."""
    home, worktree = tmp_path / "home", tmp_path / "worktree"
    (home / "imagenet").mkdir(parents=True)
    worktree.mkdir()
    save_file(net().state_dict(), home / "w.safetensors")
    net("linknet_r18").backbone.model.save_pretrained(home / "imagenet" / "resnet-18")
    monkeypatch.chdir(worktree)
    monkeypatch.setenv("ROADSEG_HOME", str(home))
    monkeypatch.setenv("HOME", str(home))
    for source in ("w.safetensors", "~/w.safetensors"):
        assert initial.load(net(seed=1), source) == []
        assert initial.digest(source) == initial.digest(str(home / "w.safetensors"))
    for source in ("imagenet:imagenet", "imagenet:~/imagenet"):
        assert initial.load(net("linknet_r18"), source)
        assert initial.digest(source) == initial.digest(f"imagenet:{home / 'imagenet'}")
    with pytest.raises(UserError, match=r"~nobody-here/w\.safetensors: this machine has no user ~nobody-here"):
        initial.load(net(), "~nobody-here/w.safetensors")


def test_imagenets_weights_of_a_folder_fill_the_backbone_and_the_rest_is_named(tmp_path: Path) -> None:
    """Random weights stand in for the published ones; transformers' own code writes and reads them."""
    theirs = net("linknet_r18", seed=5)
    theirs.backbone.model.save_pretrained(tmp_path / "resnet-18")
    fresh, untouched = net("linknet_r18", seed=6), net("linknet_r18", seed=6)
    lines = initial.load(fresh, f"imagenet:{tmp_path}")
    inside = {key for key in fresh.state_dict() if key.startswith("backbone.")}
    assert {line.split(":")[0] for line in lines} == set(fresh.state_dict()) - inside
    for key, value in fresh.state_dict().items():
        expected = theirs if key in inside else untouched
        assert torch.equal(value, expected.state_dict()[key]), key
    theirs.backbone.model.embedder.embedder.normalization.bias.data[3] = torch.inf
    theirs.backbone.model.save_pretrained(tmp_path / "resnet-18")
    with pytest.raises(
        UserError, match=r"resnet-18 \(train\.initial\): model\.embedder.*bias holds values that are not"
    ):
        initial.load(fresh, f"imagenet:{tmp_path}")


def test_the_advice_works_as_it_is_written_and_a_wrong_folder_never_asks_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object, **__: object) -> None:
        raise AssertionError("transformers was asked, which goes to the hub")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", asked)
    advice = (
        r"run `hf download microsoft/resnet-18 --local-dir FOLDER/resnet-18` .*, copy FOLDER here, and set "
        r"train\.initial: imagenet:FOLDER$"
    )
    with pytest.raises(UserError, match=rf"the folder weights/resnet-18 is not there: .*{advice}"):
        initial.load(net("linknet_r18"), "imagenet:weights")
    Path("weights/resnet-18").mkdir(parents=True)
    with pytest.raises(UserError, match=rf"weights/resnet-18 has neither model\.safetensors nor pytorch.*{advice}"):
        initial.load(net("linknet_r18"), "imagenet:weights")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    net("linknet_r18").backbone.model.save_pretrained("weights/resnet-18")
    assert initial.load(net("linknet_r18"), "imagenet:weights")


def test_a_folder_is_known_by_its_weights_and_by_what_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"imagenet:{tmp_path}"
    seen = {initial.digest(source), initial.digest("imagenet")}
    (tmp_path / "resnet-18").mkdir()
    (tmp_path / "mit-b0").mkdir()
    for file in ("resnet-18/model.safetensors", "mit-b0/pytorch_model.bin"):
        for content in ("one", "other"):
            (tmp_path / file).write_text(content)
            seen.add(initial.digest(source))
    (tmp_path / "mit-b0" / "README.md").write_text("words")
    assert initial.digest(source) in seen
    monkeypatch.setattr(backbones, "version", lambda _: "0.0")
    seen |= {initial.digest(source), initial.digest("imagenet")}
    assert len(seen) == 8
    with pytest.raises(UserError, match=r"nowhere \(params\.yaml, train\.initial\) is not there: mend the path"):
        initial.digest(f"imagenet:{tmp_path / 'nowhere'}")


def test_only_networks_on_a_published_backbone_depend_on_transformers() -> None:
    assert initial.library(["fastscnn", "pidnet_s"]) == ""
    assert initial.library(["fastscnn", "linknet_r18"]) == backbones.library()
    assert backbones.library().startswith("transformers 5.")


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.ones(2)}, path)
    before = initial.digest(str(path))
    save_file({"a": torch.zeros(2)}, path)
    assert len({before, initial.digest(str(path)), initial.digest("random"), initial.digest("imagenet")}) == 4


def test_many_lines_are_counted() -> None:
    assert initial.described([f"w{n}" for n in range(5)], most=2) == "  w0\n  w1\n  and 3 more"
