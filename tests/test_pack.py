"""The decoded cache: what comes out is what Pillow reads, and a changed input never meets an old pack."""

import hashlib
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roadseg.errors import UserError
from roadseg.scenes.index import Scene
from roadseg.scenes.pack import pack


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROADSEG_HOME", str(tmp_path / "home"))


def drawn(folder: Path, name: str, size: tuple[int, int], label_size: tuple[int, int] | None = None) -> Scene:
    """A scene of noise on disk."""
    random = np.random.default_rng(len(name) + size[0])
    label = random.integers(0, 5, label_size or size, dtype=np.uint8)
    Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    Image.fromarray(label).save(folder / f"{name}_label.png")
    return listed(folder / f"{name}.png", folder / f"{name}_label.png", label.shape)


def listed(image: Path, label: Path, size: tuple[int, ...]) -> Scene:
    """As remap lists it."""
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (label, image)]
    return Scene("train", image, label, *size, "drive", *digests)  # type: ignore[misc]


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_scenes_of_several_sizes_come_back_as_pillow_reads_them(tmp_path: Path) -> None:
    scenes = [
        drawn(tmp_path, "a", (24, 40)),
        drawn(tmp_path, "bb", (16, 8)),
        drawn(tmp_path, "ccc", (24, 40), label_size=(48, 80)),
    ]
    packed = pack(scenes)
    assert len(packed) == 3
    for i, scene in enumerate(scenes):
        image, label = packed[i]
        assert image.dtype == label.dtype == np.uint8
        np.testing.assert_array_equal(image, read(scene.image))
        np.testing.assert_array_equal(label, read(scene.label))
    assert packed.pixels == 24 * 40 * 2 + 16 * 8
    assert packed.size == (24, 40)


def test_a_long_side_shrinks_for_training_and_leaves_labels_that_are_scored(tmp_path: Path) -> None:
    large, small = drawn(tmp_path, "a", (24, 40)), drawn(tmp_path, "bb", (20, 10))
    scored, trained = pack([large, small], long_side=20), pack([large, small], long_side=20, own_labels=False)
    expected = Image.open(large.image).resize((20, 12), Image.Resampling.BILINEAR)
    for packed in (scored, trained):
        np.testing.assert_array_equal(packed[0][0], np.asarray(expected))
        np.testing.assert_array_equal(packed[1][0], read(small.image), "no larger than the limit")
        np.testing.assert_array_equal(packed[1][1], read(small.label))
    assert large.label is not None
    np.testing.assert_array_equal(scored[0][1], read(large.label))
    np.testing.assert_array_equal(trained[0][1], read(large.label)[1::2, 1::2], "every second pixel, none between")
    assert pack([large]).size == (24, 40), "another limit is another pack"


def test_unreadable_scenes_are_left_out_by_name_only_where_that_is_allowed(tmp_path: Path) -> None:
    scenes = [drawn(tmp_path, name, (8, 8)) for name in ("a", "bb", "ccc", "dddd")]
    scenes[1].image.write_bytes(b"no picture")
    scenes[2].image.unlink()
    with pytest.raises(UserError, match=r"ccc\.png is in the index but not on disk"):
        pack(scenes)
    packed = pack(scenes, skip_unreadable=True)
    assert packed.names == [scenes[place].image.as_posix() for place in (0, 3)] and packed.places == [0, 3]
    np.testing.assert_array_equal(packed[1][0], read(scenes[3].image))
    assert [line.split(" ")[0] for line in packed.left_out] == [str(scenes[1].image), str(scenes[2].image)]
    with pytest.raises(UserError, match=r"ccc\.png"):
        pack(scenes)  # a pack with gaps is never taken for a whole one
    kept = packed.folder.stat().st_ino
    assert pack(scenes, skip_unreadable=True).folder.stat().st_ino == kept, "what cannot be read is not built anew"
    drawn(tmp_path, "bb", (8, 8))
    again = pack(scenes, skip_unreadable=True)
    assert again.folder == packed.folder and again.places == [0, 1, 3], "mended, it is"
    scenes[1].image.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"none of 2 scenes can be read; the first: .*bb\.png is not the file that"):
        pack(scenes[1:3], skip_unreadable=True)


def test_an_image_that_is_larger_than_its_label_counts_by_its_own_size(tmp_path: Path) -> None:
    """30 kB of image and 25 bytes of label; shrunk to a long side of 10, 300 and 25."""
    scene = drawn(tmp_path, "a", (100, 100), label_size=(5, 5))
    with pytest.raises(UserError, match=r"take 3e-05 GB .* train\.cache_gb .* is 2e-05"):
        pack([scene], limit_gb=20e-6)
    assert pack([scene], long_side=10, limit_gb=20e-6).size == (10, 10)


def test_packs_keep_to_their_limit_and_the_oldest_go(tmp_path: Path) -> None:
    """Each scene is 100x100: 40 kB decoded, and less than one more of tables."""
    packs = [pack([drawn(tmp_path, name, (100, 100))]).folder for name in ("a", "bb", "ccc")]
    for age, folder in zip((3000, 1000, 2000), packs, strict=True):
        os.utime(folder, (time.time() - age, time.time() - age))
    last_scene = drawn(tmp_path, "dddd", (100, 100))
    last = pack([last_scene], limit_gb=100e-6).folder
    assert [folder.exists() for folder in (*packs, last)] == [False, True, False, True]
    with pytest.raises(
        UserError,
        match=r"take 0\.0001 GB beside 4.*e-05 GB opened .* train\.cache_gb .* is 5e-05",
    ):
        pack([drawn(tmp_path, "eeeee", (100, 250))], limit_gb=50e-6)
    with pytest.raises(UserError, match=r"opened in the last 10 minutes, and train\.cache_gb"):
        pack([drawn(tmp_path, "ffffff", (100, 100))], limit_gb=70e-6)  # the last was opened just now
    assert packs[1].exists() and last.exists(), "what cannot be done removes nothing"
    with pytest.raises(UserError, match=r"take 4.*e-05 GB beside 0 GB opened"):
        pack([last_scene], limit_gb=30e-6)
    assert pack([last_scene], limit_gb=60e-6).folder == last and not packs[1].exists(), "nor is one that is there"


def test_a_pack_is_built_once_and_again_when_a_scene_changes(tmp_path: Path) -> None:
    scenes = [drawn(tmp_path, "a", (8, 8)), drawn(tmp_path, "bb", (8, 8))]
    first = pack(scenes)
    built = (first.folder / "images.bin").stat().st_mtime_ns
    assert (pack(scenes).folder / "images.bin").stat().st_mtime_ns == built

    os.utime(scenes[0].image, ns=(1, 1))
    assert pack(scenes).folder == first.folder, "written anew as it was, as in another checkout"

    reordered = pack(scenes[::-1])
    for file in (scenes[0].image, scenes[1].label):
        assert file is not None
        Image.open(file).rotate(180).save(file)
    retaken = pack([listed(scenes[0].image, scenes[0].label, (8, 8))])
    relabelled = pack([listed(scenes[1].image, scenes[1].label, (8, 8))])
    np.testing.assert_array_equal(retaken[0][0], first[0][0][::-1, ::-1])
    np.testing.assert_array_equal(relabelled[0][1], first[1][1][::-1, ::-1])
    folders = {found.folder for found in (first, reordered, retaken, relabelled)}
    assert len(folders) == 4
    assert {folder.parent for folder in folders} == {tmp_path / "home" / ".state" / "packs"}


def test_a_killed_build_leaves_nothing_that_counts(tmp_path: Path) -> None:
    scene = drawn(tmp_path, "a", (8, 8))
    folder = pack([scene]).folder
    aside = folder.with_name(f"{folder.name}.aside")
    folder.rename(aside)  # as if killed before the rename
    (aside / "images.bin").write_bytes(b"half")
    np.testing.assert_array_equal(pack([scene])[0][0], read(scene.image))
    assert not aside.exists()


@pytest.mark.parametrize("file", ["images.bin", "labels.bin", "table.npy", "scenes.json"])
@pytest.mark.parametrize("left", [0, 10, None])
def test_a_damaged_pack_is_built_again(tmp_path: Path, file: str, left: int | None) -> None:
    scene = drawn(tmp_path, "a", (8, 8))
    path = pack([scene]).folder / file
    if left is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:left])
    np.testing.assert_array_equal(pack([scene])[0][0], read(scene.image))


def test_two_builders_at_once_make_one_pack(tmp_path: Path) -> None:
    """The second process, begun while the first one builds, waits for it and builds nothing."""
    scene = drawn(tmp_path, "a", (32, 32))
    first, second = (tmp_path / name for name in ("first", "second"))
    program = f"""
import sys, time
from pathlib import Path, PosixPath
from roadseg.scenes import pack
from roadseg.scenes.index import Scene
build, mine, other = pack._build, *map(Path, sys.argv[1:])
def slow(*given):
    mine.touch()
    while not other.exists(): time.sleep(0.01)
    time.sleep(0.5)
    build(*given)
pack._build = slow
if "second" in mine.name:
    while not other.exists(): time.sleep(0.01)
    mine.with_suffix(".waits").touch()
print(pack.pack([{scene!r}]).folder)
"""
    commands = [
        [sys.executable, "-c", program, str(first), str(second.with_suffix(".waits"))],
        [sys.executable, "-c", program, str(second), str(first)],
    ]
    builders = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    folders = {builder.communicate(timeout=60)[0].strip() for builder in builders}
    assert len(folders) == 1 and first.exists() and not second.exists()


def test_mistakes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = drawn(tmp_path, "a", (8, 8))
    with pytest.raises(UserError, match="no scenes to pack: the split is empty"):
        pack([])
    with pytest.raises(UserError, match=r"a\.png has no label"):
        pack([replace(scene, label=None)])
    with pytest.raises(UserError, match=r"gone\.png is in the index but not on disk: run fetch and remap again"):
        pack([replace(scene, image=tmp_path / "gone.png")])
    with pytest.raises(UserError, match=r"gone_label\.png is in the index but not on disk"):
        pack([replace(scene, label=tmp_path / "gone_label.png")])
    broken = tmp_path / "broken.png"
    broken.write_bytes(scene.image.read_bytes()[:60])
    assert scene.label is not None
    with pytest.raises(UserError, match=r"broken\.png is not the file that remap saw: run fetch and remap again"):
        pack([replace(scene, image=broken)])
    with pytest.raises(UserError, match=r"broken\.png cannot be decoded"):
        pack([scene, listed(broken, scene.label, (8, 8))])
    assert not list(tmp_path.rglob("*.aside")), "half a pack takes no room"
    with monkeypatch.context() as patches, pytest.raises(UserError, match=r"a\.png cannot be decoded \(Image size"):
        patches.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # as if 8x8 were a decompression bomb
        pack([scene])
    with pytest.raises(UserError, match=r"a\.png is a mask of mode RGB, must be 8-bit grey"):
        pack([listed(scene.image, scene.image, (8, 8))])


def test_what_nobody_opened_for_long_goes_when_another_is_built(tmp_path: Path) -> None:
    scenes = [drawn(tmp_path, name, (8, 8)) for name in ("a", "bb", "ccc")]
    old, used = pack(scenes[:1]).folder, pack(scenes[1:2]).folder
    month_ago = time.time() - 30 * 86400
    for folder in (old, used):
        os.utime(folder, (month_ago, month_ago))
    pack(scenes[1:2])  # opening it is using it
    pack(scenes[2:])
    assert (old.exists(), used.exists()) == (False, True)
