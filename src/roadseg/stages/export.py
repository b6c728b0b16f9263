"""The finalists as ONNX files, each held against the network that it came from.

In: models/train/finalists/NAME/{weights.pt, recipe.json}, the validation scenes, data/profile/scenes.csv (input size).
Out: models/export/finalists/NAME/{model.onnx, recipe.json} and models/export/agreement.json. No output holds a time or
a path of this machine: the same weights export to the same bytes.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file
from torch import nn

from roadseg import checkpoint, labels, nets, paths
from roadseg.bar import track
from roadseg.config import Config
from roadseg.deploy import engines, judge
from roadseg.deploy.engines import Session
from roadseg.deploy.export import to_onnx
from roadseg.errors import StageFailure
from roadseg.metrics import confusion, scores
from roadseg.scenes.augment import normalise
from roadseg.scenes.index import Scene, labelled
from roadseg.stages import sizes
from roadseg.stages.stage import stage

AGREEMENT = 0.999  # share of pixels whose arg max must be the network's
MIOU = 0.001  # 0.1 point: how far the mIoU may be from the network's


def run(config: Config) -> None:
    """Exports every finalist. Raises StageFailure where an export does not say what its network says."""
    with stage("export") as running:
        folder = running.folder(paths.EXPORT / "finalists")
        scenes = labelled(config, "val")
        _, size = sizes.deployed(config)
        found = paths.finalists(paths.TRAIN / "finalists")
        rows = {source.name: _export(source, folder / source.name, size, scenes) for source in found}
        running.json(paths.EXPORT / "agreement.json", rows)
        _show(rows)
        for name, row in rows.items():
            if row["agreement"] < AGREEMENT or abs(row["onnx_miou"] - row["network_miou"]) > MIOU:
                raise StageFailure(
                    f"export: {name}: ONNX agrees with its network on {row['agreement']:.3%} of pixels (at least "
                    f"{AGREEMENT:.1%} must), mIoU {row['onnx_miou']:.2%} against {row['network_miou']:.2%} (at most "
                    "0.1 point apart): look at what the network does that ONNX does otherwise"
                )


def compare(net: nn.Module, session: Session, scenes: list[Scene], classes: int, name: str) -> dict[str, Any]:
    """How far a session's ids are from its network's, on the same pixels at the input's size, and the mIoU of both.

    The network's side is what training evaluates with (its own normalisation and arg max), so that a wrong constant
    inside the graph shows. Both sides' ids are brought to the label's size by nearest neighbour.
    """
    same = seen = 0
    matrices = {"network": np.zeros((classes, classes), np.int64), "onnx": np.zeros((classes, classes), np.int64)}
    for scene in track(scenes, description=f"Comparing {name}", transient=True):
        image, label = judge.read(scene)
        batch = session.preprocess(image)
        with torch.inference_mode():
            expected = net(normalise(torch.tensor(batch))).argmax(dim=1).to(torch.uint8).numpy()
        ids = session.infer(batch)
        same, seen = same + int((ids == expected).sum()), seen + ids.size
        for side, answer in (("network", expected), ("onnx", ids)):
            matrices[side] += confusion(session.postprocess(answer, label.shape), label, classes)
    mious = {f"{side}_miou": scores(matrix).miou for side, matrix in matrices.items()}
    return {"agreement": same / seen, **mious}


def _export(source: Path, target: Path, size: tuple[int, int], scenes: list[Scene]) -> dict[str, Any]:
    recipe = json.loads((source / "recipe.json").read_text(encoding="utf-8"))
    classes = len(labels.load(recipe["space"]).classes)
    net = nets.build(recipe["network"], classes)
    net.load_state_dict(checkpoint.load(source / "weights.pt"))
    net.eval()
    target.mkdir()
    shutil.copyfile(source / "recipe.json", target / "recipe.json")
    save_file(net.state_dict(), target / "weights.safetensors")  # for a later training to start from
    model = target / "model.onnx"
    with Console(stderr=True).status(f"Exporting {source.name}"):
        to_onnx(net, height=size[0], width=size[1], mean=recipe["mean"], std=recipe["std"], path=model)
    form = engines.REFERENCE
    session = engines.open_session(model, form.engine, form.precision, torch.get_num_threads(), form.device)
    row = compare(net, session, scenes, classes, source.name)
    return {"input": {"height": size[0], "width": size[1]}, **row, "trained_miou": recipe["val_miou"]}


def _show(rows: dict[str, dict[str, Any]]) -> None:
    table = Table("finalist", "input", "arg max agrees", "mIoU, network", "mIoU, ONNX", title="Export")
    for name, row in rows.items():
        size = f"{row['input']['height']}x{row['input']['width']}"
        table.add_row(name, size, f"{row['agreement']:.3%}", f"{row['network_miou']:.2%}", f"{row['onnx_miou']:.2%}")
    Console().print(table)
