"""Makes the README's picture from a finished line: `python docs/pictures.py [OUT]`.

In: the promoted bundle and the test scenes of params.yaml's sources. Out: docs/images/SOURCE.png, a row a scene: image,
label, prediction. The scenes are spread over the split's sequences, not picked by score.
"""

import sys
from pathlib import Path

from PIL import Image

from roadseg import figures, paths
from roadseg.config import read
from roadseg.deploy import judge, run
from roadseg.scenes.index import labelled
from roadseg.scenes.sources import space_of

ROWS = 4


def main(out: Path | None = None) -> None:
    config = read()
    space = space_of(config)
    scenes = labelled(config, "test")
    session, _, _ = run.open_bundle(paths.PROMOTE / "bundle")
    rows = []
    for scene in scenes[:: -(-len(scenes) // ROWS)]:
        image, label = judge.read(scene)
        rows.append(figures.triptych(image, label, session.run(image), space))
    out = out or Path("docs/images") / f"{config.data.sources[0]}.png"
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(figures.sheet(rows, columns=1)).save(out, optimize=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
