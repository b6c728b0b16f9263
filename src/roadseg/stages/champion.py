"""The reigning champion as a contender: its bundle from the registry, judged and timed on today's terms.

What it takes is kept in .state/champion/: the bundle by model and content, its confusions by model and today's scenes,
its certificate by model, form, machine and versions.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from roadseg import paths
from roadseg.config import Config, Target
from roadseg.deploy import bundle, device, engines, judge
from roadseg.deploy.run import certified_form
from roadseg.errors import UserError
from roadseg.labels import LabelSpace
from roadseg.scenes.index import Scene, labelled
from roadseg.stages.contest import Contender, deployment

if TYPE_CHECKING:
    from roadseg.tracking.registry import Registry, Version


def fetch(registry: "Registry", version: "Version") -> Path:
    """The version's bundle in a folder of ours, every checksum right. Copied from the registry once."""
    # Named by its content: another store, or one made anew, has a version 1 of its own.
    folder = paths.state("champion", version.name, version.digest[:16], "bundle")
    try:
        bundle.verify(folder)
    except UserError:  # not here yet, or not whole
        shutil.rmtree(folder, ignore_errors=True)
        registry.download(version, folder)
        bundle.verify(folder)
    return folder


def contender(
    config: Config, space: LabelSpace, version: "Version", folder: Path, candidates: Sequence[Contender]
) -> Contender:
    """The champion on today's validation scenes and this machine. Equal to a candidate, it has that one's scores."""
    content = read(folder)
    name = f"{content['recipe']['name']} (version {version.number})"
    same = next((one for one in candidates if one.sha256 == content["onnx_sha256"]), None)
    test = (content["metrics"]["test"] or {}).get("miou")
    deployed = content["forms"][content["form"]]
    if same:
        return Contender(name, same.sha256, deployed, same.matrices, same.test_miou, version.number, same.unfit)
    form, certificate = certified_form(content)
    scenes = labelled(config, "val")
    unfit = _unfit(content, space, form, config.target)
    try:
        session = engines.open_session(folder / "model.onnx", form.engine, form.precision, form.threads, form.device)
    except UserError as error:
        unfit = unfit or f"it cannot run here: {error}"
    if unfit:
        return Contender(name, content["onnx_sha256"], None, None, test, version.number, unfit)
    image, _ = judge.read(scenes[0])
    chosen = {**deployed, "certificate": _certificate(session, image, certificate)}
    matrices = _matrices(session, content["onnx_sha256"], scenes, len(space.classes))
    return Contender(name, content["onnx_sha256"], chosen, matrices, test, version.number)


def read(folder: Path) -> dict[str, Any]:
    """bundle.json's content."""
    return dict(json.loads((folder / "bundle.json").read_text(encoding="utf-8")))


def form_of(entry: dict[str, Any], content: dict[str, Any], budget_ms: float) -> int | None:
    """Index of the form that a candidate would be deployed in: the champion's, where it is the champion's model and
    that form is still valid here and within the budget, else the fastest one.

    So two forms that are about as fast do not take turns, with a new version each time that they are timed.
    """
    if entry["onnx_sha256"] == content["onnx_sha256"]:
        held = deployment(content["forms"][content["form"]])
        for place, form in enumerate(entry["forms"]):
            if form["valid"] and form["certificate"]["p95_ms"] <= budget_ms and deployment(form) == held:
                return place
    return entry["form"]


def judged(config: Config, space: LabelSpace, entry: dict[str, Any], form: dict[str, Any]) -> np.ndarray:
    """A candidate's confusions on today's validation scenes, int64 [S, C, C], in another form than evaluate chose."""
    parts = (form[part] for part in ("engine", "precision", "threads", "device"))
    session = engines.open_session(Path(entry["onnx"]), *parts)
    return _matrices(session, entry["onnx_sha256"], labelled(config, "val"), len(space.classes))


def _unfit(content: dict[str, Any], space: LabelSpace, form: engines.Form, target: Target) -> str:
    """Why the champion cannot be compared on today's validation scenes; empty where it can."""
    if form.engine not in target.engines or (form.threads, form.device) != (target.threads, target.device):
        return f"it is deployed as {form}, which today's target is not (params.yaml, target.engines, threads, device)"
    if content["space"]["classes"] != list(space.classes):
        return f"it speaks {content['space']['name']}, and today's labels are {space.name}"
    scenes = pd.read_csv(paths.PROFILE / "scenes.csv", keep_default_na=False)
    today = set(scenes.loc[scenes["split"] == "val", "image_sha256"])
    seen = today & {one["image_sha256"] for one in content["data"]["training_scenes"].values()}
    return f"it was trained on {len(seen)} of today's {len(today)} validation scenes" if seen else ""


def _certificate(session: engines.Session, image: np.ndarray, certificate: dict[str, Any]) -> dict[str, Any]:
    """Its own where that was taken on this machine with these versions and images of this size, else one taken here,
    once."""
    here = {
        "device_id": device.device_id(session.form.device),
        "versions": device.versions(),
        "image": list(image.shape[:2]),
    }
    if {key: certificate[key] for key in here} == here:
        return certificate
    key = _key(str(session.form), here, certificate["input"], certificate["device_id"], certificate["p95_ms"])
    path = paths.state("champion", "certificates", f"{key}.json")
    if not path.exists():
        from roadseg.deploy import latency  # it imports torch, which an unchanged promote need not wait for

        path.write_text(json.dumps(latency.certify(session, image).as_dict()), encoding="utf-8")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _matrices(session: engines.Session, sha256: str, scenes: list[Scene], classes: int) -> np.ndarray:
    """Per-scene confusion on today's validation scenes, int64 [S, C, C]; judged once for the same scenes."""
    pixels = [scene.image_sha256 for scene in scenes]
    key = _key(sha256, str(session.form), pixels, [scene.label_sha256 for scene in scenes])
    path = paths.state("champion", "judged", f"{key}.npy")
    if not path.exists():
        aside = path.with_suffix(".aside.npy")
        np.save(aside, judge.judge(session, scenes, classes, description="Judging the champion").scenes)
        aside.replace(path)
    return np.asarray(np.load(path))


def _key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
