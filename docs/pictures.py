"""Makes the README's and docs/results.md's pictures from a finished line: `python docs/pictures.py [FOLDER]`.

In: the promoted bundle, the test scenes of params.yaml's sources, and the finalists' curves. Out: SOURCE.png, a row a
scene: image, label, prediction, and SOURCE-curves.png, in docs/images/ or FOLDER. The scenes are spread over the
split's sequences, not picked by score.
"""

import sys
from pathlib import Path

import pandas as pd
from PIL import Image

from roadseg import figures, paths
from roadseg.config import read
from roadseg.deploy import judge, run
from roadseg.scenes.index import labelled
from roadseg.scenes.sources import space_of

ROWS = 4


def main(folder: Path = Path("docs/images")) -> None:
    config = read()
    space = space_of(config)
    scenes = labelled(config, "test")
    session, _, _ = run.open_bundle(paths.PROMOTE / "bundle")
    rows = []
    for scene in scenes[:: -(-len(scenes) // ROWS)]:
        image, label = judge.read(scene)
        rows.append(figures.triptych(image, label, session.run(image), space))
    source = config.data.sources[0]
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(figures.sheet(rows, columns=1)).save(folder / f"{source}.png", optimize=True)
    figures.curves(pd.read_csv(paths.TRAIN / "curves.csv")).savefig(folder / f"{source}-curves.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
