"""A source to look at: contact sheets of its scenes, and for each class the scenes that show least and most of it.

Reads data/profile/scenes.csv and the scenes; writes FOLDER/: sheet.png, legend.png and class-NAME.png. A row of a sheet
is a scene: image, labels in their colours, both. Unlabelled scenes are left out.
"""

import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from rich.console import Console

from roadseg import figures, paths
from roadseg.bar import track
from roadseg.config import Config
from roadseg.errors import UserError
from roadseg.labels import IGNORE, LabelSpace
from roadseg.scenes import png, sources
from roadseg.stages import audit

WIDTH, HEIGHT = 480, 270  # pixels of one picture on a sheet; what is not 16:9 is padded


def run(config: Config, source: str, out: Path, scenes: int = 8, each: int = 3) -> None:
    """Writes the sheets of `source`: `scenes` spread over it, and 2 x `each` for a class.

    Raises UserError where the source is not profiled, or has no labelled scene.
    """
    sources.get(config, source)
    space, table = sources.space_of(config), audit.read("scenes.csv")
    table = table[(table["source"] == source) & table["label"].notna()].reset_index(drop=True)
    if table.empty:
        raise UserError(
            f"{paths.PROFILE}/scenes.csv has no labelled scene of {source}: add it to data.sources and profile"
        )
    missing = [name for name in space.classes if f"share_{name}" not in table]
    if missing:
        raise UserError(
            f"{paths.PROFILE}/scenes.csv has no class {missing[0]!r} of {space.name}: run the profile stage"
        )
    paths.folder(out)
    spread = table.iloc[np.unique(np.linspace(0, len(table) - 1, min(scenes, len(table))).astype(int))]
    figures.legend(space).savefig(out / "legend.png")
    _sheet(spread, space, out / "sheet.png")
    for name in track(space.classes, description="classes", transient=True):
        chosen = extremes(table, name, each)
        if len(chosen):
            _sheet(chosen, space, out / f"class-{re.sub(r'[^a-z0-9]+', '-', name.lower())}.png")
    Console().print(
        f"{source}: {len(list(out.glob('*.png')))} pictures in {out}; start with {out / 'sheet.png'}", markup=False
    )


def extremes(table: pd.DataFrame, name: str, each: int) -> pd.DataFrame:
    """The `each` scenes with the least and the `each` with the most of a class, of those that show it, least first."""
    shown = table[table[f"share_{name}"] > 0].sort_values([f"share_{name}", "image"])
    return pd.concat([shown.head(each), shown.tail(each)]).loc[lambda rows: ~rows.index.duplicated()]


def _sheet(table: pd.DataFrame, space: LabelSpace, path: Path) -> None:
    pictures = []
    for row in table.itertuples():
        image, ids = pair(Path(str(row.image)), Path(str(row.label)))
        pictures += [image, figures.colour(ids, space), figures.overlay(image, ids, space)]
    Image.fromarray(figures.sheet(pictures, columns=3)).save(path, optimize=True)


def pair(image: Path, label: Path) -> tuple[np.ndarray, np.ndarray]:
    """A scene's image (uint8 HWC RGB) and its ids (uint8 HW), both `fitted`. UserError where a file cannot be read."""
    pixels, ids = png.read_rgb(image), png.read_ids(label)
    if pixels.shape[:2] != ids.shape:
        pixels = cv2.resize(pixels, ids.shape[::-1], interpolation=cv2.INTER_AREA)
    return fitted(pixels, cv2.INTER_AREA, 255), fitted(ids, cv2.INTER_NEAREST, IGNORE)


def fitted(pixels: np.ndarray, interpolation: int, fill: int) -> np.ndarray:
    """An image (uint8 HWC) or ids (uint8 HW) within HEIGHT x WIDTH, its proportions kept, `fill` around it."""
    height, width = pixels.shape[:2]
    scale = min(HEIGHT / height, WIDTH / width)
    small = cv2.resize(
        pixels, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=interpolation
    )
    frame = np.full((HEIGHT, WIDTH, *pixels.shape[2:]), fill, np.uint8)
    top, left = (HEIGHT - small.shape[0]) // 2, (WIDTH - small.shape[1]) // 2
    frame[top : top + small.shape[0], left : left + small.shape[1]] = small
    return frame
