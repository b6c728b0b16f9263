"""What a network starts from, and that everything that was not loaded is said."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from roadseg import nets
from roadseg.errors import UserError
from roadseg.nets import initial


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


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("models/x.pt", r"train\.initial \(='models/x\.pt'\) must be random, imagenet, imagenet:FOLDER, a \.saf"),
        ("gone.safetensors", r"gone\.safetensors \(params\.yaml, train\.initial\) is not there"),
        ("text.safetensors", r"text\.safetensors \(train\.initial\) is no safetensors file"),
        ("other.safetensors", r"holds no weight that fits FastSCNN: it is of another network"),
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
    with pytest.raises(UserError, match=r"resnet-18"):
        initial.load(fresh, f"imagenet:{tmp_path / 'nowhere'}")


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.ones(2)}, path)
    before = initial.digest(str(path))
    save_file({"a": torch.zeros(2)}, path)
    assert len({before, initial.digest(str(path)), initial.digest("random"), initial.digest("imagenet")}) == 4


def test_many_lines_are_counted() -> None:
    assert initial.described([f"w{n}" for n in range(5)], most=2) == "  w0\n  w1\n  and 3 more"
