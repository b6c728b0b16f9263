"""`roadseg predict`: a bundle, run from here.

It is the bundle's own run.py with a progress bar around it, so the ids are the same by construction.
"""

from pathlib import Path

from rich.console import Console

from roadseg.bar import track
from roadseg.deploy import run
from roadseg.errors import UserError


def predict(source: Path, out: Path, bundle: Path) -> None:
    """Segments an image or a folder of images: for each NAME.* writes OUT/NAME.png (uint8 class ids at the image's own
    size) and OUT/NAME_overlay.png.

    Raises:
        UserError: the bundle is incomplete or changed, or an image is missing or cannot be read.
    """
    console = Console(stderr=True, soft_wrap=True)
    try:
        session, content, note = run.open_bundle(bundle)
        console.print(note, style="dim", markup=False, highlight=False)
        found = run.images(source)
        for path in track(found, description="Segmenting", console=console):
            run.segment(session, content, path, out)
    except run.Problem as problem:
        raise UserError(str(problem)) from None
    console.print(f"{len(found)} image{'s'[: len(found) > 1]} segmented into {out}", markup=False, highlight=False)
