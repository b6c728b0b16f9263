"""The bundle: one folder that holds everything a deployer needs, and nothing that runs code of the model's.

model.onnx      the bytes that were judged
bundle.json     label space with colours, input, metrics with protocol, forms with certificates, provenance
MODEL_CARD.md   the same for people
sample.png      an overlay that this bundle made
run.py          segments images; needs onnxruntime, numpy and pillow alone
SHA256SUMS      of the files above
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

import roadseg
from roadseg import labels, paths
from roadseg.config import Config
from roadseg.deploy import card, run
from roadseg.errors import UserError
from roadseg.scenes import sources

FORMAT = 1
FILES = ("MODEL_CARD.md", "bundle.json", "model.onnx", "run.py", "sample.png")


def assemble(
    candidate: Mapping[str, Any], config: Config, folder: Path, *, decision: Mapping[str, Any], sample: Path
) -> None:
    """Makes the bundle of one of evaluate's candidates in `folder` (made where it is not there).

    Args:
        candidate: an entry of models/evaluate/candidates.json whose `form` is not None.
        decision: what promote decided; its "reason" (one line) is quoted on the card.
        sample: an image; sample.png is this bundle's own overlay of it, so every bundle has run once.

    Raises:
        UserError: the ONNX file is not the one that was judged, or the candidate has no valid form.
    """
    if candidate["form"] is None:
        raise UserError(f"{candidate['name']} has no valid form to deploy: see models/evaluate/candidates.json")
    model = Path(candidate["onnx"])
    if hashlib.sha256(model.read_bytes()).hexdigest() != candidate["onnx_sha256"]:
        raise UserError(f"{model} is not the file that evaluate judged: run evaluate again")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model, folder / "model.onnx")
    shutil.copyfile(run.__file__, folder / "run.py")
    content = describe(candidate, config, decision)
    (folder / "bundle.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text(card.render(content), encoding="utf-8")
    _sample(folder, content, sample)
    sums = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in FILES]
    (folder / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")


def verify(folder: Path) -> None:
    """Raises UserError naming the first file of the bundle that is missing or not what SHA256SUMS lists."""
    try:
        run.verify(folder)
    except run.Problem as problem:
        raise UserError(str(problem)) from None


def describe(candidate: Mapping[str, Any], config: Config, decision: Mapping[str, Any]) -> dict[str, Any]:
    """bundle.json's content."""
    space = labels.load(candidate["protocol"]["space"])
    recipe = ("name", "network", "loss", "crop", "learning_rate")
    return {
        "format": FORMAT,
        "model": config.target.registered_name(space.name),
        "recipe": {key: candidate[key] for key in recipe},
        "onnx_sha256": candidate["onnx_sha256"],
        "space": {"name": space.name, "classes": list(space.classes), "colours": [list(rgb) for rgb in space.colours]},
        "input": {**candidate["input"], "name": "image", "layout": "NHWC", "type": "uint8 RGB 0-255"},
        "output": {"name": "ids", "layout": "NHW", "type": "uint8 class ids"},
        "metrics": {key: candidate[key] for key in ("val", "official", "test", "elsewhere", "protocol")},
        "budget_ms": config.target.budget_ms,
        "forms": candidate["forms"],
        "form": candidate["form"],
        "decision": decision.get("reason", ""),
        "data": _data(config),
        "code": _code(),
    }


def _data(config: Config) -> dict[str, Any]:
    """Which data it learnt from: the sources with their terms, and the hash of every training scene."""
    scenes = pd.read_csv(paths.PROFILE / "scenes.csv", keep_default_na=False)
    train = scenes[scenes["split"] == "train"]
    hashes = {
        image: {"image_sha256": pixels, "label_sha256": label}
        for image, pixels, label in zip(train["image"], train["image_sha256"], train["label_sha256"], strict=True)
    }
    return {
        "sources": {name: {"licence": sources.get(config, name).licence} for name in config.data.trained},
        "profile_sha256": hashlib.sha256((paths.PROFILE / "scenes.csv").read_bytes()).hexdigest(),
        "training_scenes": hashes,
    }


def _code() -> dict[str, Any]:
    """The version and git revision of this code; `dirty` where src/ differs from it. Outside git: no revision."""

    def git(*words: str) -> str | None:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        revision, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no", "--", "src")
    except OSError:  # git is not installed
        revision, changed = None, None
    return {"roadseg": roadseg.__version__, "revision": revision, "dirty": bool(changed)}


def _sample(folder: Path, content: Mapping[str, Any], image: Path) -> None:
    form, _ = run.certified_form(content)
    try:
        pixels = run.read_image(image)
        ids = run.Session(folder / "model.onnx", form).run(pixels)
    except run.Problem as problem:
        raise UserError(str(problem)) from None
    Image.fromarray(run.overlay(pixels, ids, content["space"]["colours"])).save(folder / "sample.png")
