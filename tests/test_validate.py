"""The data checks: what each refuses, what it only warns of, and that the reports are written either way."""

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from roadseg.config import Config
from roadseg.errors import UserError
from roadseg.stages import accepted, audit, checks, fetch, profile, remap, validate
from roadseg.stages.findings import sentence
from tests import segnet
from tests.segnet import change

MIRROR = segnet.ROOT.parent / "shared/mirror"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A temporary project whose scenes are profiled. CamVid's sequences carry drives' names that no split shares."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROADSEG_MIRROR", raising=False)
    monkeypatch.delenv("ROADSEG_HOME", raising=False)
    return segnet.profiled()


def report() -> dict[str, dict[str, object]]:
    written = json.loads(Path("data/validation/report.json").read_text())
    return {check["check"]: check for check in written["checks"]}


def test_good_data_passes_and_leaves_its_reports(project: Config) -> None:
    validate.run(project)
    written = Path("data/validation/report.json").read_text()
    assert json.loads(written)["passed"] is True
    assert json.loads(written)["scenes"] == {"train": 3, "val": 1, "test": 1}
    assert all(check["passed"] for check in report().values())
    assert list(report())[:2] == ["labelled splits", "class shares"]
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
    "copies across splits": (
        "scenes.csv",
        "split != 'test'",
        {"image_sha256": "ab"},
        rf"{IMAGE} \(image_splits 2\) like \S+0016E5_",
    ),
    "void share": (
        "scenes.csv",
        ROW,
        {"void_share": 0.36},
        rf"at most 35% .*: {IMAGE} \(void_share 0.36\); mend",
    ),
    "ragged masks": ("scenes.csv", ROW, {"ragged": 0.3}, rf"interpolated ids are; not so: {IMAGE} \(ragged 0\.3\)"),
    "sequence": (
        "scenes.csv",
        "split == 'test' or " + ROW,
        {"sequence": "0007"},
        r"a sequence is in one split only; not so: 0007 of camvid: 1 in train, 1 in test; keep all scenes",
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
    scenes = audit.scene_table()
    findings = validate.check(checks.suites(project, scenes, accepted.shares(project)))
    failed = [finding for finding in findings if not finding.passed and finding.severity == "critical"]
    assert check in [finding.check for finding in failed]
    assert re.search(because, next(sentence(finding) for finding in failed if finding.check == check))


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


def test_warnings_do_not_fail(project: Config) -> None:
    """A copy inside a split, and a class that only val lacks."""
    change("scenes.csv", "split == 'train'", image_sha256="ab")
    change("classes.csv", "split == 'val' and class_name == 'pole'", scenes=0)
    validate.run(project)
    failed = {name: check["severity"] for name, check in report().items() if not check["passed"]}
    assert failed == dict.fromkeys(["copies in a split", "class in val and test"], "warning")


LEAK = "0016E5 of camvid: 1 in train, 1 in val: val is one continuous shot cut out of this training sequence"


def test_an_official_leak_is_waived_by_name_and_another_is_not(
    project: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    change("scenes.csv", "split == 'val' or " + ROW, sequence="0016E5")
    validate.run(project)
    assert (report()["sequence"]["passed"], report()["sequence"]["severity"]) == (True, "critical")
    assert report()["sequence"]["waived"] == [LEAK]
    assert f"validation waives sequence: {LEAK}\n" in capsys.readouterr().out
    assert f"- sequence: {LEAK}\n" in Path("data/validation/summary.md").read_text()
    change("scenes.csv", "split == 'test' or image.str.contains('f00010')", sequence="0016E5b")
    with pytest.raises(UserError, match=r"not so: 0016E5b of camvid: 1 in train, 1 in test; keep all"):
        validate.run(project)
    assert report()["sequence"]["waived"] == [LEAK]
    assert report()["sequence"]["offenders_in_all"] == 1
    validate.run(segnet.settings(validate__waive={"sequence": {"0016E5b": "known to me", "0016E5 ": "mine too"}}))
    assert [str(one).split(": ")[-1] for one in np.atleast_1d(report()["sequence"]["waived"])] == [
        "mine too",
        "known to me",
    ]


NOTICED = {
    "near copies across splits": ("scenes.csv", "split != 'test'", {"phash": "00000000000000ff"}, "nearest 0"),
    "nearly empty masks": ("scenes.csv", ROW, {"n_classes": 1}, "n_classes 1"),
    "odd brightness": ("scenes.csv", ROW, {"brightness": 9999.0}, "brightness_odd"),
    "odd blur": ("scenes.csv", ROW, {"blur": 1e9}, "blur_odd"),
    "class shares": ("classes.csv", "split == 'val' and class_name == 'sky'", {"share": 0.9}, r"val \(drift 0\.4"),
}


@pytest.mark.parametrize("check", NOTICED)
def test_what_is_worth_a_look_is_warned_of(project: Config, check: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, where, values, says = NOTICED[check]
    change(name, where, **values)
    validate.run(project)
    assert (report()[check]["passed"], report()[check]["severity"]) == (False, "warning")
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(check))
    assert re.search(rf"{check} +warns +\d+  .*{says}", row)


def test_a_checks_severity_is_params_to_choose(project: Config) -> None:
    change("scenes.csv", ROW, void_share=0.9, n_classes=1)
    wanted = {"void share": "warn", "nearly empty masks": "off", "odd blur": "fail"}
    validate.run(segnet.settings(validate={"void_share": 0.35, "severity": wanted}))
    assert (report()["void share"]["passed"], report()["void share"]["severity"]) == (False, "warning")
    assert "nearly empty masks" not in report()
    assert report()["odd blur"]["severity"] == "critical"
    wrong = segnet.settings(validate={"void_share": 0.35, "severity": {"voids": "warn"}})
    with pytest.raises(UserError, match=r"validate\.severity: there is no check 'voids'; there are: labelled splits"):
        validate.run(wrong)


def test_what_is_waived_by_name_passes_and_is_reported_with_its_reason(
    project: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    change("scenes.csv", "split == 'train'", void_share=0.9)
    waive = {"void share": {"0006R0": "the camera was covered"}}
    with pytest.raises(UserError, match=r"not so: \S+0001TP_000010\.png \(void_share 0\.9\);"):
        validate.run(segnet.settings(validate={"void_share": 0.35, "waive": waive}))
    assert report()["void share"]["offenders_in_all"] == 1
    waive["void share"]["0001TP_000010"] = "at night"
    validate.run(segnet.settings(validate={"void_share": 0.35, "waive": waive}))
    assert report()["void share"]["passed"] is True
    waived = report()["void share"]["waived"]
    assert len(waived) == 3 and all("covered" in line or "at night" in line for line in waived)
    printed = capsys.readouterr().out
    assert re.search(r"void share +waived +3  ", printed) and "validation waives void share: " in printed


def test_a_waiver_that_lets_nothing_pass_is_named(project: Config, capsys: pytest.CaptureFixture[str]) -> None:
    validate.run(segnet.settings(validate={"void_share": 0.35, "waive": {"void share": {"gone": "it was dark"}}}))
    assert "nothing of 'void share' is called like 'gone' (params.yaml, validate.waive)" in capsys.readouterr().out


def test_nearest_and_odd_equal_naive_loops() -> None:
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "phash": [f"{random.integers(0, 1 << 63):016x}" for _ in range(30)],
            "split": random.choice(["train", "val", "test"], 30),
        }
    )
    nearest, partners = audit.nearest_across_splits(table)
    for i, (a, split) in enumerate(table.itertuples(index=False)):
        bits = {
            j: (int(a, 16) ^ int(b, 16)).bit_count()
            for j, (b, other) in enumerate(table.itertuples(index=False))
            if other != split
        }
        assert (nearest[i], partners[i]) == (min(bits.values()), min(bits, key=lambda j: bits[j]))
    alone = audit.nearest_across_splits(table.assign(split="train"))
    assert (alone[0].tolist(), alone[1].tolist()) == ([64] * 30, [-1] * 30)
    assert audit.oddness(pd.Series([0.0, 1, 2, 3, 4, 13])).tolist() == [0.5, 0.1, 0, 0, 0.1, 3.7], (
        "quartiles 1.25, 3.75"
    )


def test_a_twin_is_the_first_image_of_another_split_with_the_same_bytes() -> None:
    rows = [("x", "train", "a"), ("x", "train", "b"), ("x", "val", "c"), ("x", "test", "d"), ("y", "val", "e")]
    table = pd.DataFrame(rows, columns=["image_sha256", "split", "image"])
    assert audit.twins(table) == ["c", "c", "a", "a", None]


def test_interpolated_ids_are_ragged_and_drawn_ones_are_not() -> None:
    ids = np.full((200, 300), 3, np.uint8)
    for row in range(200):
        ids[row, : 100 + row // 3], ids[row, 250 - row // 2 :] = 7, 12
    assert profile.raggedness(ids) == 0
    small = np.asarray(Image.fromarray(ids).resize((150, 100), Image.Resampling.BILINEAR))
    assert profile.raggedness(small) > 0.3
    assert profile.raggedness(np.zeros((4, 4), np.uint8)) == 0


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
    leaks = report()["sequence"]
    assert (leaks["passed"], leaks["offenders"], leaks["waived_in_all"]) == (True, [], 2)
    assert [str(leak)[:6] for leak in np.atleast_1d(leaks["waived"])] == ["0001TP", "0016E5"]


def test_a_source_out_of_domain_asks_for_no_class_and_stops_no_training(project: Config, workspace: Path) -> None:
    """KITTI could show a wall, which camvid's training never does; a bad mask of KITTI's is said, and waived."""
    names = ["camvid", "kitti"]
    config = segnet.settings(
        sources__camvid={"archive": "mine.zip"},
        data__sources=names,
        data__weights={"kitti": 0},
        data__space="cityscapes19",
    )
    with zipfile.ZipFile("kitti.zip", "w") as archive:
        for name in ("000150_10", "000151_10"):
            image, ids = segnet.pair(9, np.zeros((12, 24), np.uint8))
            archive.writestr(f"training/image_2/{name}.png", segnet.png(image))
            archive.writestr(f"training/semantic/{name}.png", segnet.png(ids))
    kitti = config.sources.kitti.model_copy(update={"archive": Path("kitti.zip"), "expect": None})
    config = config.model_copy(update={"sources": config.sources.model_copy(update={"kitti": kitti})})
    for name in names:
        fetch.run(config, name)
        remap.run(config, name)
    profile.run(config)
    validate.run(config)
    checks = report()
    assert checks["class in train"]["passed"] and checks["class in val and test"]["passed"]
    waived = [one for one in checks["void share"]["waived"] if "kitti" in str(one)]
    assert len(waived) == 2 and "never trained on" in str(waived[0])
