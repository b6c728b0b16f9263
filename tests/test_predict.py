import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from roadseg.deploy import run
from roadseg.deploy.predict import predict
from roadseg.errors import UserError
from tests import brightest
from tests.test_bundle import form, made, project

__all__ = ["project"]  # the fixture


@pytest.fixture
def photos(project):
    folder = project / "photos"
    for number, name in enumerate(("b.png", "a.bmp")):
        brightest.save(folder / name, brightest.picture(number))
    (folder / "notes.txt").write_text("not an image")
    return folder


def masks(folder):
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))}


def test_folder_gives_masks_and_overlays_at_the_images_size(project, photos):
    brightest.save(photos / "large.jpg", brightest.picture(3, 96, 70))
    predict(photos, project / "out", made(project))
    found = masks(project / "out")
    assert list(found) == ["a.png", "a_overlay.png", "b.png", "b_overlay.png", "large.png", "large_overlay.png"]
    assert np.array_equal(found["b.png"], brightest.answer(brightest.picture(0)))
    assert np.array_equal(found["a.png"], brightest.answer(brightest.picture(1)))
    assert (found["large.png"].shape, found["large_overlay.png"].shape) == ((96, 70), (96, 70, 3))


def test_one_image(project, photos):
    predict(photos / "b.png", project / "out", made(project))
    assert list(masks(project / "out")) == ["b.png", "b_overlay.png"]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_run_py_gives_the_same_ids(project, photos, engine):
    folder = made(project, [form(engine)])
    predict(photos, project / "ours", folder)
    words = [sys.executable, str(folder / "run.py"), str(photos), "--out", str(project / "theirs")]
    subprocess.run(words, check=True, capture_output=True)
    ours, theirs = masks(project / "ours"), masks(project / "theirs")
    assert list(ours) == list(theirs)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_what_is_wrong_with_the_input_is_one_line(project, photos):
    folder = made(project)
    with pytest.raises(UserError, match="nowhere does not exist: give an image or a folder of images"):
        predict(project / "nowhere", project / "out", folder)
    (project / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no image"):
        predict(project / "empty", project / "out", folder)
    (project / "empty" / "broken.png").write_bytes(b"not a png")
    with pytest.raises(UserError, match=r"broken.png cannot be read as an image"):
        predict(project / "empty", project / "out", folder)
    brightest.save(photos / "a.png", brightest.picture(0))
    with pytest.raises(UserError, match=r"a\.bmp and .*a\.png would both be written to a\.png: rename one"):
        predict(photos, project / "out", folder)
    with pytest.raises(UserError, match="is not a bundle"):
        predict(photos, project / "out", project)


def test_an_output_is_never_written_over_another(project, photos, tmp_path):
    for name in ("a.png", "a_overlay.png"):
        brightest.save(tmp_path / "clash" / name, brightest.picture(1))
    with pytest.raises(UserError, match=r"a\.png and .*a_overlay\.png would both be written to a_overlay\.png: rename"):
        predict(tmp_path / "clash", tmp_path / "out", made(project))


def test_an_out_that_cannot_be_written_to_is_one_line(project, photos, tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(UserError, match=r"--out .*taken cannot be written to \(File exists\): give another folder"):
        predict(photos, tmp_path / "taken", made(project))


def test_a_photo_on_its_side_is_turned_up(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: the top is at the right
    Image.fromarray(brightest.picture(1)).save(tmp_path / "phone.png", exif=turned)
    expected = np.rot90(brightest.picture(1), -1)
    assert np.array_equal(run.read_image(tmp_path / "phone.png"), expected)


def test_images_are_never_overwritten(project, photos):
    with pytest.raises(UserError, match="give another --out"):
        predict(photos, photos, made(project))
    assert np.array_equal(np.asarray(Image.open(photos / "b.png")), brightest.picture(0))


def test_an_image_of_more_than_8_bits_is_refused(tmp_path):
    """Pillow would cut it off at 255: a picture of white."""
    for pixels in (np.full((4, 4), 300, np.uint16), np.full((4, 4), 0.5, np.float32)):
        path = tmp_path / "deep.tiff"
        Image.fromarray(pixels).save(path)
        with pytest.raises(run.Problem, match=r"deep\.tiff cannot be read as an image: its pixels are (I;16|F), more"):
            run.read_image(path)


def test_an_image_too_large_for_pillow_is_named(tmp_path, monkeypatch):
    Image.new("RGB", (20, 20)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(run.Problem, match=r"huge\.png cannot be read as an image: Image size"):
        run.read_image(tmp_path / "huge.png")
