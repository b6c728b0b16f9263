"""params/studies and params/: each is a study or a run that can be begun, and its page says what the numbers say."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from bench import course, learned, study
from roadseg import config
from roadseg.errors import UserError
from roadseg.stages import profile, trainable
from tests.test_overfit import STREETS, prepared

PROJECT = Path(__file__).resolve().parents[1]
STUDIES = sorted((PROJECT / "params" / "studies").glob("*.yaml"))
PARAMS = yaml.safe_load((PROJECT / "params.yaml").read_text())


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_variant_is_a_setting_that_there_is(path: Path, tmp_path: Path) -> None:
    of = yaml.safe_load(path.read_text())
    assert set(of["order"]) <= set(of["variants"]) and len(of["seeds"]) >= 3 and len(of["variants"]) >= 2
    seen = set()
    for name, settings in of["variants"].items():
        settings = of["base"] | settings | of.get("before", {}).get(name, {})
        written = tmp_path / "params.yaml"
        written.write_text(yaml.safe_dump(config.replaced(PARAMS, settings)))
        trainable.check(config.read(written))
        seen.add(written.read_text())
    assert len(seen) == len(of["variants"]), "no two variants are the same run"


def test_the_recipe_against_the_clock_is_a_run_of_its_own() -> None:
    path = PROJECT / "params" / "camvid30.yaml"
    given = config.read(path)
    trainable.check(given)
    values = yaml.safe_load(path.read_text())
    for section in PARAMS.keys() - {"seed", "sources"}:
        assert values[section].keys() == PARAMS[section].keys(), "DVC asks for each"
    assert given.data.sources == ("camvid",) and given.train.initial == "random"


def test_a_run_is_trained_and_scored(workspace: Path) -> None:
    """What studies and the clock do with their settings, on a few drawn scenes."""
    given = prepared(sources=STREETS, train={"epochs": 2}, search={"networks": ["fastscnn"], "losses": ["dice"]})
    profile.run(given)
    made = course.trained(given)
    assert made.steps > 0 and made.scores["val"].miou == made.curve["val_miou"].iloc[-1], "the same weights and scenes"
    assert 0 < made.scores["test"].miou < 1
    assert not list(Path(".state/checkpoints").glob("*.pt"))


def test_one_network_alone_is_not_held_against_others() -> None:
    one = {"best": [0.3, 0.4], "median": [0.1, 0.2], "best enet": [0.3, 0.4]}
    assert list(learned.verdicts(one, 0.5, 0.2).values()) == [True, True, True]
    held = learned.verdicts(one | {"best fcn": [0.1, 0.2]}, 0.5, 0.2)
    assert held["networks differ by more than seeds do"] and len(held) == 4


def test_settings_that_there_are_not_are_refused() -> None:
    with pytest.raises(UserError, match=r"params\.yaml has no key train\.epoch \(given 3\)"):
        config.replaced(PARAMS, {"train.epoch": 3})
    assert config.replaced(PARAMS, {"train.epochs": 3})["train"]["epochs"] == 3 != PARAMS["train"]["epochs"]


def test_a_study_says_whether_the_published_order_holds() -> None:
    of = {"question": "Which?", "published": "a 2, b 1", "order": ["a", "b"], "variants": {"b": {}, "a": {}}}
    frame = pd.DataFrame(
        {
            "variant": ["a", "a", "b", "b", "b"],
            "settings": "9f",
            "val_miou": [0.4, 0.5, 0.2, 0.4, 0.6],
            "test_miou": 0.3,
            "minutes": [1.0, 1.0, 1.0, 2.0, 9.0],
        }
    )
    frame["device"] = "1 core"
    assert study.told(of, frame) in study.page("which", of | {"seeds": [1, 2], "base": {"seed": 7}}, frame)
    page = study.told(of, frame)
    assert "| b | 40.0% ± 20.0% | 30.0% ± 0.0% | 2.00 | 3 |\n| a | 45.0% ± 7.1% |" in page
    assert "The published order (a, b) holds here" in page
    frame.loc[0, "val_miou"] = 0.1
    assert "does not hold here" in study.told(of, frame) and "it is b, a." in study.told(of, frame)
