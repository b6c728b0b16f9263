"""The data checks: what each refuses, what it only warns of, and that the reports are written either way."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from roadseg.config import Config
from roadseg.errors import UserError
from roadseg.stages import fetch, profile, remap, validate
from tests import segnet

MIRROR = segnet.ROOT.parent / "shared/mirror"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A temporary project whose scenes are profiled. CamVid's sequences carry drives' names that no split shares."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROADSEG_MIRROR", raising=False)
    monkeypatch.delenv("ROADSEG_HOME", raising=False)
    segnet.write_archive(Path("mine.zip"), segnet.files(segnet.default_scenes()))
    config = segnet.settings(sources__camvid={"archive": "mine.zip"})
    fetch.run(config, "camvid")
    remap.run(config, "camvid")
    profile.run(config)
    return config


def change(name: str, where: str, **values: object) -> None:
    """Plants values in the rows of data/profile/NAME that a query selects."""
    path = Path("data/profile") / name
    table = pd.read_csv(path)
    rows = table.query(where).index
    assert len(rows)
    for column, value in values.items():
        table[column] = table[column].astype(object)
        table.loc[rows, column] = value
    table.to_csv(path, index=False)


def report() -> dict[str, dict[str, object]]:
    written = json.loads(Path("data/validation/report.json").read_text())
    return {check["check"]: check for check in written["checks"]}


def test_good_data_passes_and_leaves_its_reports(project: Config) -> None:
    validate.run(project)
    written = Path("data/validation/report.json").read_text()
    assert json.loads(written)["passed"] is True
    assert json.loads(written)["scenes"] == {"train": 3, "val": 1, "test": 1}
    assert all(check["passed"] for check in report().values())
    assert list(report())[:2] == ["labelled splits", "pairing"]
    assert str(Path.cwd()) not in written
    assert Path("data/validation/docs/index.html").is_file()
    assert Path("data/validation/summary.md").read_text().startswith("# Validation: passed\n")
    validate.run(project)
    assert Path("data/validation/report.json").read_text() == written


IMAGE = "data/raw/camvid/CamVid/train/0006R0_f00040.png"
ROW = f"image == '{IMAGE}'"
REFUSED = {
    "labelled splits": (
        "scenes.csv",
        "split == 'val'",
        {"label": None},
        "have labelled scenes; not so: val \\(labelled 0\\);",
    ),
    "pairing": ("scenes.csv", ROW, {"label": None}, rf"every train and val image has its mask; not so: {IMAGE};"),
    "own mask": (
        "scenes.csv",
        "split == 'train'",
        {"label": "l.png"},
        r"belongs to one image; not so: data/raw/",
    ),
    "equal height": ("scenes.csv", ROW, {"image_height": 11}, rf"{IMAGE} \(height 12, image_height 11\);"),
    "equal width": ("scenes.csv", ROW, {"width": 11}, rf"same width; not so: {IMAGE} \(width 11, image_width 24\);"),
    "copies across splits": ("scenes.csv", "split != 'test'", {"image_sha256": "ab"}, rf"{IMAGE} \(image_splits 2\)"),
    "void share": (
        "scenes.csv",
        ROW,
        {"void_share": 0.36},
        rf"at most 35% .*: {IMAGE} \(void_share 0.36\); mend",
    ),
    "sequence": (
        "scenes.csv",
        "split == 'test' or " + ROW,
        {"sequence": "0007"},
        rf"a sequence is in one split only; not so: 0007 of camvid: {IMAGE} and \S+Seq05VD_f00000\.png \(splits 2\);",
    ),
    "class in train": (
        "classes.csv",
        "split == 'train' and class_name == 'pole'",
        {"scenes": 0, "pixels": 0},
        r"not so: pole in train \(scenes 0\); add scenes that show the class, or waive it by name in params\.yaml",
    ),
}


@pytest.mark.parametrize("check", REFUSED)
def test_what_is_refused(project: Config, check: str) -> None:
    name, where, values, because = REFUSED[check]
    change(name, where, **values)
    scenes = validate.scene_table()
    findings = validate.check(validate.suites(project, scenes), docs=None)
    failed = [finding for finding in findings if not finding.passed and finding.severity == "critical"]
    assert check in [finding.check for finding in failed]
    assert re.search(because, next(validate.sentence(finding) for finding in failed if finding.check == check))


def test_a_failure_is_one_line_and_leaves_its_reports(project: Config) -> None:
    change("scenes.csv", ROW, void_share=0.5, width=11)
    with pytest.raises(UserError) as caught:
        validate.run(project)
    assert str(caught.value) == (
        f"validation: expected that image and mask have the same width; not so: {IMAGE} (width 11, image_width 24); "
        "restore the pair, or fetch and remap the source again (also failing: void share); "
        "see data/validation/summary.md"
    )
    assert json.loads(Path(".state/errors/validate.json").read_text())["kind"] == "user"
    assert {name for name, check in report().items() if not check["passed"]} == {"equal width", "void share"}
    assert json.loads(Path("data/validation/report.json").read_text())["passed"] is False
    assert Path("data/validation/summary.md").read_text().startswith("# Validation: failed\n")
    assert Path("data/validation/docs/index.html").is_file()


def test_warnings_do_not_fail(project: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """An official leak, a copy inside a split, and a class that only val lacks."""
    change("scenes.csv", "split == 'val' or " + ROW, sequence="0016E5")
    change("scenes.csv", "split == 'train'", image_sha256="ab")
    change("classes.csv", "split == 'val' and class_name == 'pole'", scenes=0)
    validate.run(project)
    failed = {name: check["severity"] for name, check in report().items() if not check["passed"]}
    assert failed == dict.fromkeys(["copies in a split", "official sequence", "class in val and test"], "warning")
    assert "val is one continuous shot cut out of this training sequence" in capsys.readouterr().out


def test_many_offenders_are_counted(tmp_path: Path, project: Config) -> None:
    table = pd.read_csv("data/profile/scenes.csv")
    many = pd.concat([table] * 12, ignore_index=True)
    for column in ("image", "label", "image_sha256"):
        many[column] = [f"{column}{n:02}.png" for n in range(len(many))]
    many["void_share"] = 0.9
    many.to_csv("data/profile/scenes.csv", index=False)
    with pytest.raises(UserError, match=r"image00\.png \(void_share 0\.9\), image01.*, image02.* and 57 more;"):
        validate.run(project)
    assert report()["void share"]["offenders_in_all"] == 60
    assert len(report()["void share"]["offenders"]) == 20


def test_classes_are_waived_by_name(project: Config) -> None:
    change("classes.csv", "class_name == 'pole'", scenes=0)
    waiving = segnet.settings(validate={"void_share": 0.35, "classes_absent": ["pole"]})
    validate.run(waiving)
    assert report()["class in train"]["passed"] is True
    wrong = segnet.settings(validate={"void_share": 0.35, "classes_absent": ["poles"]})
    with pytest.raises(UserError, match=r"validate\.classes_absent: camvid11 has no class 'poles'; it has: sky"):
        validate.run(wrong)


def test_a_class_that_no_source_can_show_is_not_asked_for(project: Config) -> None:
    config = segnet.settings(sources__camvid={"archive": "mine.zip"}, data__space="cityscapes19")
    remap.run(config, "camvid")
    profile.run(config)
    validate.run(config)
    assert report()["class in train"]["passed"] is True


def test_a_missing_profile_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROADSEG_HOME", raising=False)
    with pytest.raises(UserError, match=r"data/profile/scenes\.csv is missing: run the profile stage first"):
        validate.run(segnet.settings())


@pytest.mark.skipif(not MIRROR.is_dir(), reason="../shared/mirror is not there")
def test_the_real_mirror_passes_with_its_leaks_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROADSEG_HOME", raising=False)
    monkeypatch.setenv("ROADSEG_MIRROR", str(MIRROR))
    config = segnet.settings()
    fetch.run(config, "camvid")
    remap.run(config, "camvid")
    profile.run(config)
    validate.run(config)
    leaks = report()["official sequence"]
    assert leaks["offenders_in_all"] == 2
    assert [str(leak)[:6] for leak in np.atleast_1d(leaks["offenders"])] == ["0001TP", "0016E5"]
