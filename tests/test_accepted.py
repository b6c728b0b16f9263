"""Class shares against the last accepted profile: what is kept, when, and what the next run says of it."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from roadseg.config import Config
from roadseg.errors import UserError
from roadseg.stages import accepted, findings, profile, remap, validate
from tests import segnet
from tests.segnet import change

CHECK = "class shares since the last accepted profile"
KEPT = Path(".state/accepted/camvid-camvid11.csv")


@pytest.fixture
def project(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Five scenes, profiled; each of the eleven classes has an eleventh of the pixels."""
    monkeypatch.delenv("ROADSEG_MIRROR", raising=False)
    return segnet.profiled()


def kept() -> pd.DataFrame:
    return pd.read_csv(KEPT).set_index("class_name")


def found() -> dict[str, object]:
    written = json.loads(Path("data/validation/report.json").read_text())
    return next(check for check in written["checks"] if check["check"] == CHECK)


def move(**shares: float) -> None:
    for name, share in shares.items():
        change("classes.csv", f"split == 'train' and class_name == '{name}'", share=share)


def test_the_first_profile_is_accepted_as_it_is(project: Config) -> None:
    validate.run(project)
    assert (found()["passed"], found()["offenders"]) == (True, [])
    classes = pd.read_csv("data/profile/classes.csv").query("split == 'train'").set_index("class_name")
    assert kept()["share"].to_dict() == classes["share"].to_dict()
    assert kept()["before"].isna().all()


def test_what_moved_is_warned_of_with_both_shares_and_the_same_again(project: Config) -> None:
    move(sky=0.5, road=0.25, car=0.1, tree=0.15, **dict.fromkeys(set(kept_names()) - {"sky", "road", "car", "tree"}, 0))
    validate.run(project)
    move(sky=0.25, road=0.46, car=0.14, tree=0.15)
    validate.run(project)
    assert found()["severity"] == "warning"
    assert found()["offenders"] == [
        "sky 25.0%, it was 50.0%; road 46.0%, it was 25.0%; car 14.0%, it was 10.0% (drift 0.25)"
    ]
    written = Path("data/validation/report.json").read_bytes()
    validate.run(project)
    assert Path("data/validation/report.json").read_bytes() == written, "the same profile: the same report"
    move(sky=0.26, road=0.45)
    validate.run(project)
    assert found()["passed"] is True, "0.01 from the last one"
    assert kept().loc["sky"].tolist() == [0.26, 0.25]


def kept_names() -> list[str]:
    return pd.read_csv("data/profile/classes.csv")["class_name"].unique().tolist()


@pytest.mark.parametrize(("moved", "passes"), [(0.0999, True), (0.1, True), (0.1001, False)])
def test_a_tenth_of_the_pixels_may_move(project: Config, moved: float, passes: bool) -> None:
    move(sky=0.2, road=0.2)
    validate.run(project)
    move(sky=0.2 + moved, road=0.2 - moved)
    validate.run(project)
    assert found()["passed"] is passes


def test_a_class_that_came_and_one_that_went_count_whole(project: Config) -> None:
    validate.run(project)
    table = kept()
    table.loc["tram"] = [0.2, None]
    table.drop(index="sky").to_csv(KEPT)
    validate.run(project)
    assert re.fullmatch(
        r"tram 0\.0%, it was 20\.0%; sky 9\.1%, it was 0\.0% \(drift 0\.1455\)",
        str(found()["offenders"][0]),  # type: ignore[index]
    )
    assert kept().loc["tram"].tolist() == [0.0, 0.2]


def test_a_failed_run_accepts_nothing(project: Config) -> None:
    validate.run(project)
    before = KEPT.read_bytes()
    move(sky=0.9)
    failing = segnet.settings(validate__severity={CHECK: "fail"})
    with pytest.raises(UserError, match=r"by at most 10% of the pixels; not so: sky 90\.0%, it was 9\.1% \(drift 0\.4"):
        validate.run(failing)
    change("scenes.csv", "split == 'val'", void_share=0.9)
    with pytest.raises(UserError, match="are void"):
        validate.run(project)
    assert KEPT.read_bytes() == before
    waived = {"waive": {CHECK: {"sky": "it was winter"}, "void share": {"0016E5": "fog"}}}
    validate.run(segnet.settings(validate={"void_share": 0.35, "severity": {CHECK: "fail"}, **waived}))
    assert str(found()["waived"]).endswith(": it was winter']")
    assert kept().at["sky", "share"] == 0.9


def test_an_experiment_is_compared_and_accepts_nothing(project: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "wider")
    validate.run(project)
    assert not accepted.path_of(project).exists()


def test_a_run_that_is_killed_before_its_end_accepts_nothing(project: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(findings, "show", die)
        validate.run(project)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("roadseg.stages.stage.Stage.place", die)
        validate.run(project)
    assert not list(Path(".state/accepted").glob("*"))
    validate.run(project)
    assert KEPT.is_file()


def test_other_sources_and_another_space_have_their_own(project: Config) -> None:
    validate.run(project)
    other = segnet.settings(sources__camvid={"archive": "mine.zip"}, data__space="cityscapes19")
    remap.run(other, "camvid")
    profile.run(other)
    validate.run(other)
    assert found()["passed"] is True
    assert {path.name for path in KEPT.parent.iterdir()} == {KEPT.name, "camvid-cityscapes19.csv"}
    both = [segnet.settings(data__sources=names) for names in (["camvid", "kitti"], ["kitti", "camvid"])]
    assert {accepted.path_of(config).name.partition("-")[0] for config in both} == {"camvid+kitti"}
    scored = segnet.settings(data__sources=["camvid", "kitti"], data__weights={"kitti": 0})
    assert accepted.path_of(scored).name == KEPT.name, "kitti is never trained on"


def test_a_worktree_is_compared_with_what_its_home_accepted(project: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    validate.run(project)
    home = Path.cwd()
    worktree = home / "worktree"
    worktree.mkdir()
    (home / "data").rename(worktree / "data")
    monkeypatch.chdir(worktree)
    monkeypatch.setenv("ROADSEG_HOME", str(home))
    move(sky=0.9)
    validate.run(project)
    assert found()["passed"] is False
    assert not Path(".state").exists()
    assert pd.read_csv(home / KEPT).set_index("class_name").at["sky", "share"] == 0.9


@pytest.mark.parametrize("content", ["", "class_name,share\nsky,0.5\n", "class_name,share,before\nsky,much,\n"])
def test_a_broken_file_says_what_to_do(project: Config, content: str) -> None:
    KEPT.parent.mkdir(parents=True)
    KEPT.write_text(content)
    with pytest.raises(UserError, match=r"accepted/camvid-camvid11\.csv cannot be read \(.+\): remove it$"):
        validate.run(project)
