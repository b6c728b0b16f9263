"""params.yaml: the project's own is valid, every mistake is one line that names file, key and value."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from roadseg import config
from roadseg.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def values() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    return loaded


def read(values: Any, folder: Path) -> config.Config:
    path = folder / "params.yaml"
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values), encoding="utf-8")
    return config.read(path)


def sections(model: type[BaseModel] = config.Config) -> list[type[BaseModel]]:
    """Every section of the settings, the whole first."""
    inner = [part for field in model.model_fields.values() for part in (field.annotation, *get_args(field.annotation))]
    models = [part for part in inner if isinstance(part, type) and issubclass(part, BaseModel)]
    return [model, *(found for part in models for found in sections(part))]


def test_the_projects_own_settings_are_valid(values: dict[str, Any], tmp_path: Path) -> None:
    settings = read(values, tmp_path)
    assert settings.data.sources == tuple(values["data"]["sources"])
    assert settings.validate_.void_share == values["validate"]["void_share"]


def test_every_section_is_frozen_and_forbids_unknown_keys(values: dict[str, Any], tmp_path: Path) -> None:
    assert len(sections()) > 8
    for section in sections():
        assert section.model_config["frozen"], section
        assert section.model_config["extra"] == "forbid", section
    with pytest.raises(ValidationError, match="frozen"):
        read(values, tmp_path).train.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("section", "key", "value", "says"),
    [
        ("train", "epochs", 0, "train.epochs: Input should be greater than 0 (it is 0)"),
        ("train", "epoch", 3, "train.epoch: there is no such key (it is 3)"),
        (
            "train",
            "precision",
            "half",
            "train.precision: Input should be 'auto', 'float32', 'bfloat16' or 'float16' (it is 'half')",
        ),
        ("train", "epochs", float("inf"), "train.epochs: Input should be a finite number (it is inf)"),
        ("train", "zoom", [1], "train.zoom.1: this value is missing"),
        ("search", "networks", "enet", "search.networks: must be a list (it is 'enet')"),
        ("train", "ema", 1.0, "train.ema: Input should be less than 1 (it is 1.0)"),
        ("data", "sources", [], "data.sources: Tuple should have at least 1 item after validation, not 0 (it is [])"),
        ("data", "weights", {"kitti": 2}, "data: `weights` names 'kitti', which `sources` does not"),
        ("data", "weights", {"streets": 0}, "data: `weights` leaves no source to train on"),
        ("validate", "void_share", 1.5, "validate.void_share: Input should be less than or equal to 1 (it is 1.5)"),
        ("target", "engines", ["tensorrt"], "target.engines.0: Input should be 'onnxruntime' or 'openvino'"),
        ("target", "name", "a/b", "target.name: String should match pattern"),
        ("retrain", "timezone", "Mars", "retrain.timezone: this is no time zone's IANA name"),
        ("search", "crops", [1.5], "search.crops.0: Input should be less than or equal to 1 (it is 1.5)"),
    ],
)
def test_a_mistake_names_file_key_and_value(
    values: dict[str, Any], tmp_path: Path, section: str, key: str, value: Any, says: str
) -> None:
    values[section][key] = value
    with pytest.raises(UserError) as caught:
        read(values, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'params.yaml'}: {says}")
    assert "\n" not in message


def test_a_seed_that_numpy_does_not_take(values: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"seed: Input should be greater than or equal to 0 \(it is -1\)"):
        read(values | {"seed": -1}, tmp_path)


def test_a_range_the_wrong_way_round(values: dict[str, Any], tmp_path: Path) -> None:
    values["search"]["learning_rate"] = {"low": 0.1, "high": 0.01}
    with pytest.raises(UserError, match=r"search\.learning_rate: .*`low` \(=0\.1\) must not exceed `high` \(=0\.01\)"):
        read(values, tmp_path)


def test_a_missing_key_is_named(values: dict[str, Any], tmp_path: Path) -> None:
    del values["target"]["budget_ms"]
    with pytest.raises(UserError, match=r"target\.budget_ms: this key is missing$"):
        read(values, tmp_path)


def test_a_misspelt_key_is_what_is_named(values: dict[str, Any], tmp_path: Path) -> None:
    values["search"]["trialz"] = values["search"].pop("trials")
    with pytest.raises(UserError, match=r"search\.trialz: there is no such key \(it is \d+\)$"):
        read(values, tmp_path)


def test_what_is_no_yaml_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"params\.yaml is not YAML: ") as caught:
        read("data: [streets", tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"\(top level\): "):
        read("just words", tmp_path)


def test_a_folder_without_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"params\.yaml is not in .*: run roadseg from the project's root"):
        config.read()


def test_the_environments_mirror_comes_first(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values["data"]["mirror"] = "from-params"
    settings = read(values, tmp_path)
    monkeypatch.delenv("ROADSEG_MIRROR", raising=False)
    assert settings.data.mirror_address() == "from-params"
    monkeypatch.setenv("ROADSEG_MIRROR", "from-environment")
    assert settings.data.mirror_address() == "from-environment"


def test_the_registered_name_tells_the_target(values: dict[str, Any], tmp_path: Path) -> None:
    values["target"] |= {"name": None, "device": "cpu", "budget_ms": 60.0}
    assert read(values, tmp_path).target.registered_name("camvid11") == "roadseg-camvid11-cpu-60ms"
    values["target"] |= {"budget_ms": 7.5}
    assert read(values, tmp_path).target.registered_name("camvid11") == "roadseg-camvid11-cpu-7.5ms"
    values["target"] |= {"name": "mine"}
    assert read(values, tmp_path).target.registered_name("camvid11") == "mine"
