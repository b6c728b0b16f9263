"""The offenders' page: its pictures, its words, and that nothing broken keeps it from being written."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from roadseg import figures, labels
from roadseg.config import Config
from roadseg.errors import UserError
from roadseg.stages import offenders, show, validate
from roadseg.stages.findings import Finding, Offender
from tests import segnet
from tests.segnet import change

DOCS = Path("data/validation/docs")
ONE = "data/raw/camvid/CamVid/train/0006R0_f00040.png"


class Page(HTMLParser):
    """What a browser would find: links and pictures, identifiers, text by heading, and tags that are left open."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.pictures: list[str] = []
        self.ids: set[str] = set()
        self.sections: dict[str, str] = {"": ""}
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [value for key, value in attrs if key == "href" and value]
        self.pictures += [value for key, value in attrs if key == "src" and value]
        if given.get("id"):
            self.ids.add(str(given["id"]))
        if tag == "h2":
            self.sections[str(given["id"])] = ""
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.sections[list(self.sections)[-1]] += data


@pytest.fixture
def project(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.delenv("ROADSEG_MIRROR", raising=False)
    return segnet.profiled()


def page() -> Page:
    found = Page(DOCS / offenders.PAGE)
    assert not found.open
    for target in [*found.links, *found.pictures]:
        name, _, anchor = target.partition("#")
        assert ":" not in name and "//" not in name, "nothing from outside"
        assert (DOCS / name).exists()
        assert not anchor or anchor in found.ids
    return found


def drawn(name: str, of: int = 2) -> list[np.ndarray]:
    """The views of a picture, without the white that fills a frame of another shape than 16:9."""
    pixels = np.asarray(Image.open(DOCS / name)).astype(int)
    assert pixels.shape == (show.HEIGHT, of * (show.WIDTH + figures.GAP) - figures.GAP, 3)
    step = show.WIDTH + figures.GAP
    return [pixels[40:-40, place * step + 30 : place * step + show.WIDTH - 30] for place in range(of)]


def plain(path: str, colour: tuple[int, int, int]) -> None:
    Image.new("RGB", (24, 12), colour).save(path)


def near(pixels: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixels.reshape(-1, 3).mean(axis=0) - colour).max() < 6)


def test_a_scene_is_beside_itself_with_its_labels_over_it(project: Config) -> None:
    plain(ONE, (10, 20, 200))
    change("scenes.csv", f"image == '{ONE}'", void_share=0.9)
    with pytest.raises(UserError, match=r"see data/validation/summary\.md"):
        validate.run(project)
    found = page()
    assert "Validation failed" in found.sections[""]
    text = found.sections["void-share"]
    assert text.startswith("void share: FAILS")
    assert "Expected: at most 35% of a scene's pixels are void" in text and "Severity: critical" in text
    assert "To do: mend these masks" in text and f"{ONE} (void_share 0.9)" in text
    assert found.pictures == ["offenders/void-share-01.jpg"]
    image, over = drawn(found.pictures[0])
    assert near(image, (10, 20, 200))
    top = over[0:5]  # the second of the drawn mask's twelve rows is building; the first is above the cut
    building = labels.load("camvid11").colours[1]
    mixed = [round(0.45 * a + 0.55 * b) for a, b in zip((10, 20, 200), building)]
    assert near(top, (mixed[0], mixed[1], mixed[2]))


def test_the_page_is_found_from_the_other_reports(project: Config) -> None:
    change("scenes.csv", f"image == '{ONE}'", void_share=0.9)
    with pytest.raises(UserError):
        validate.run(project)
    index = (DOCS / "index.html").read_text()
    assert re.search(r'<body[^>]*><p [^>]*><a href="offenders\.html">The offenders, with pictures</a></p>', index)
    assert "index.html" in page().links
    assert "[The offenders, with pictures](docs/offenders.html)" in Path("data/validation/summary.md").read_text()


def test_good_data_has_a_page_without_pictures(project: Config) -> None:
    validate.run(project)
    found = page()
    assert list(found.sections) == [""] and not found.pictures
    assert "Validation passed" in found.sections[""] and "near copies across splits" in found.sections[""]
    assert not list((DOCS / offenders.PICTURES).iterdir())


def test_images_that_are_alike_are_side_by_side_and_once(project: Config) -> None:
    other = "data/raw/camvid/CamVid/val/0016E5_07961.png"
    plain(ONE, (200, 0, 0))
    plain(other, (0, 0, 200))
    change("scenes.csv", f"image in ('{ONE}', '{other}')", phash="00ff00ff00ff00ff")
    validate.run(project)
    found = page()
    assert found.pictures == ["offenders/near-copies-across-splits-01.jpg"]
    left, right = drawn(found.pictures[0])
    assert near(left, (200, 0, 0)) and near(right, (0, 0, 200))
    text = found.sections["near-copies-across-splits"]
    assert f"{ONE} (nearest 0) like {other}" in text and f"{other} (nearest 0) like {ONE}" in text


def test_a_sequence_shows_the_first_scene_of_each_split(project: Config) -> None:
    images = {
        split: f"data/raw/camvid/CamVid/{split}/{name}.png"
        for split, name in (("train", "0006R0_f00010"), ("val", "0016E5_07961"), ("test", "Seq05VD_f00000"))
    }
    colours = {"train": (200, 0, 0), "val": (0, 200, 0), "test": (0, 0, 200)}
    for split, path in images.items():
        plain(path, colours[split])
    change("scenes.csv", "sequence != '0001TP'", sequence="0016E5")
    validate.run(project)
    found = page()
    assert found.pictures == ["offenders/sequence-waived-01.jpg"]
    for view, colour in zip(drawn(found.pictures[0], of=3), colours.values()):
        assert near(view, colour)
    text = found.sections["sequence"]
    assert text.startswith("sequence: waived") and "Waived, with the reason: 1" in text and "To do" not in text
    assert "0016E5 of camvid: 2 in train, 1 in val, 1 in test: val is one continuous shot" in text
    assert all(path in text for path in images.values())


@pytest.mark.parametrize("broken", [b"", b"no image", None])
def test_a_broken_image_is_listed_without_a_picture(project: Config, broken: bytes | None) -> None:
    Path(ONE).unlink() if broken is None else Path(ONE).write_bytes(broken)
    change("scenes.csv", "split == 'train'", void_share=0.9)
    with pytest.raises(UserError, match="are void"):
        validate.run(project)
    assert page().pictures == ["offenders/void-share-01.jpg", "offenders/void-share-02.jpg"]
    assert re.search(rf"\(no picture: {ONE} .+\){ONE} \(void_share 0\.9\)", page().sections["void-share"])


def test_an_unlabelled_scene_is_shown_alone(project: Config) -> None:
    change("scenes.csv", f"image == '{ONE}'", label=None)
    with pytest.raises(UserError, match="has its mask"):
        validate.run(project)
    assert len(drawn("offenders/pairing-01.jpg", of=1)) == 1


def test_classes_and_splits_have_no_pictures(project: Config) -> None:
    change("classes.csv", "split == 'val' and class_name == 'sky'", share=0.9, scenes=0)
    validate.run(project)
    assert page().pictures == []
    assert "sky in val (scenes 0)" in page().sections["class-in-val-and-test"]
    assert "val (drift 0.4" in page().sections["class-shares"]


def test_many_offenders_have_eight_pictures_twenty_names_and_a_number(tmp_path: Path) -> None:
    names = [str(tmp_path / f"{number:02}.png") for number in range(23)]
    for name in names:
        plain(name, (0, 0, 0))
    found = tuple(Offender(name, shows=(name,)) for name in names)
    finding = Finding("void share", "it is not void", "critical", False, "mend it", found)
    scenes = pd.DataFrame({"image": names, "label": None})
    offenders.write(tmp_path, [finding], scenes, labels.load("camvid11"))
    written = Page(tmp_path / offenders.PAGE)
    assert written.pictures == [f"offenders/void-share-{number:02}.jpg" for number in range(1, 9)]
    assert [name in written.sections["void-share"] for name in names] == [True] * 20 + [False] * 3
    assert written.sections["void-share"].rstrip().endswith("and 3 more")


def test_names_are_escaped(tmp_path: Path) -> None:
    name = "<script>alert('&')</script>"
    offender = Offender(name, "n 1", reason="<b>mine</b>", shows=(f"{name}.png",))
    finding = Finding("a < b & c", "<i>", "critical", True, "<u>", (Offender(name),), (offender,))
    offenders.write(tmp_path, [finding], pd.DataFrame({"image": [], "label": []}), labels.load("camvid11"))
    text = (tmp_path / offenders.PAGE).read_text()
    assert not re.search(r"<(script|b|i|u)>", text)
    found = Page(tmp_path / offenders.PAGE)
    assert not found.open and f"{name} (n 1): <b>mine</b>" in found.sections["a-b-c"]
    assert "#a-b-c" in found.links
