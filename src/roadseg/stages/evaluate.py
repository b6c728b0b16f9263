"""The exported finalists, judged and timed in every form that they could be deployed in.

In: models/export/finalists/NAME/{model.onnx, recipe.json}, the scenes, data/profile/scenes.csv (what they are).
Out: models/evaluate/: candidates.json (what promote decides on), metrics.json (the leader, for `dvc metrics show`),
scenes/NAME.npz (of each split judged, the per-scene confusion int64 [S, C, C] of the chosen form), and the tables and
pictures of `evaluation_report`.

Whatever is chosen here is chosen on the validation split. Test, the official val beside blocks, and the sources that
are never trained on are only reported. Unlabelled scenes get predictions and no score.
"""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from roadseg import paths
from roadseg.bar import track
from roadseg.config import Config, Target
from roadseg.deploy import engines, judge, latency
from roadseg.deploy.engines import Form, Session
from roadseg.deploy.judge import Verdict
from roadseg.errors import UserError
from roadseg.labels import LabelSpace
from roadseg.metrics import scores
from roadseg.scenes import sources
from roadseg.scenes.index import ELSEWHERE, Scene, labelled
from roadseg.scenes.sources import OFFICIAL
from roadseg.stages import audit, evaluation_report
from roadseg.stages.stage import stage

MIOU = 0.001  # 0.1 point: how far a form's mIoU may be from float32's
SHARES = ("miou", "pixel_accuracy", "mean_accuracy", "mean_dice")
REPORTED = ("test", OFFICIAL, ELSEWHERE)


def run(config: Config) -> None:
    """Judges and times every finalist, and writes models/evaluate/."""
    with stage("evaluate") as running:
        space = sources.space_of(config)
        scenes = {split: labelled(config, split) for split in ("train", "val", *REPORTED)}
        if not scenes["val"]:
            raise UserError("no labelled scene is in the val split: look at the index.csv of each of data.sources")
        facts = audit.read("scenes.csv")
        assessed = [
            assess(source, config, space, scenes, facts) for source in paths.finalists(paths.EXPORT / "finalists")
        ]
        candidates, judged = [one for one, _ in assessed], {one["name"]: verdicts for one, verdicts in assessed}
        running.json(paths.EVALUATE / "candidates.json", candidates)
        folder = running.folder(paths.EVALUATE / "scenes")
        for name, verdicts in judged.items():
            matrices = {split: verdict.scenes for split, verdict in verdicts.items()}
            np.savez_compressed(folder / f"{name}.npz", allow_pickle=False, **matrices)
        best = leader(candidates, config.target.budget_ms)
        running.json(paths.EVALUATE / "metrics.json", summary(best, config.target.budget_ms))
        session = _open(Path(best["onnx"]), _deployed(best["forms"], best["form"], config.target))
        evaluation_report.write(running, config, candidates, best, judged, session, scenes, facts)


def assess(
    source: Path, config: Config, space: LabelSpace, scenes: dict[str, list[Scene]], facts: pd.DataFrame
) -> tuple[dict[str, Any], dict[str, Verdict]]:
    """One finalist: its entry of candidates.json, and what its chosen form said of each split."""
    recipe, target = json.loads((source / "recipe.json").read_text(encoding="utf-8")), config.target
    model, name = source / "model.onnx", recipe["name"]
    forms, judged = _forms(model, name, target, scenes["val"], len(space.classes))
    chosen = fastest(forms)
    deployed = _deployed(forms, chosen, target)
    session = _open(model, deployed)
    verdicts = {"val": judged[deployed]} | {
        split: judge.judge(session, scenes[split], len(space.classes), description=f"{name}: {split}")
        for split in REPORTED
    }
    height, width = session.size
    candidate = {
        **{key: recipe[key] for key in ("name", "network", "loss", "crop", "learning_rate", "training")},
        "onnx": model.as_posix(),
        "onnx_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "input": {"height": height, "width": width},
        "forms": forms,
        "form": chosen,
        **{split: described(verdicts[split].scenes, space) for split in ("val", "test", OFFICIAL)},
        ELSEWHERE: _by_source(verdicts[ELSEWHERE].scenes, scenes[ELSEWHERE], facts, space),
        "val_by_source": _by_source(verdicts["val"].scenes, scenes["val"], facts, space),
        "protocol": {
            "space": space.name,
            "sources": list(config.data.trained),
            "splits": {split: len(listed) for split, listed in scenes.items() if listed},
            "val": _how_val(config),
            "resolution": _resolution([scene for listed in scenes.values() for scene in listed], (height, width)),
            "pretraining": _pretraining(recipe),
        },
    }
    return candidate, verdicts


def _by_source(
    matrices: np.ndarray, scenes: list[Scene], facts: pd.DataFrame, space: LabelSpace
) -> dict[str, dict[str, Any] | None]:
    """The scores of each source by itself: domains are not one split."""
    of = evaluation_report.facts_of(scenes, facts)["source"]
    return {name: described(matrices[(of == name).to_numpy()], space) for name in dict.fromkeys(of)}


def _pretraining(recipe: dict[str, Any]) -> str:
    before = "none" if recipe["initial"] == "random" else recipe["initial"]
    return f"{before}; taught by {recipe['distil']['teacher']}" if recipe["distil"] else before


def _how_val(config: Config) -> str:
    """Which scenes the model was chosen on, as words."""
    blocks = {name: sources.get(config, name).blocks for name in config.data.trained}
    made = [
        f"the last {one.share:.0%} of each training sequence of {name}, {one.gap} frames off"
        for name, one in blocks.items()
        if one
    ]
    return "; ".join([*made, *["official splits"] * (None in blocks.values())])


def _forms(
    model: Path, name: str, target: Target, scenes: list[Scene], classes: int
) -> tuple[list[dict[str, Any]], dict[Form, Verdict]]:
    """A model's forms as candidates.json lists them, and what each said of the validation scenes."""
    plain, offered = _plain(target), engines.forms(target.engines, target.device, target.threads)
    judged = {
        form: judge.judge(_open(model, form), scenes, classes, description=f"{name}: {form}")
        for form in dict.fromkeys([plain, *offered])
    }
    float32 = scores(judged[plain].scenes).miou
    image, _ = judge.read(scenes[0])
    rows = []
    for form in track(offered, description=f"Timing {name}", auto_refresh=False, transient=True):
        certificate = latency.certify(_open(model, form), image)
        miou = scores(judged[form].scenes).miou
        why = objection(miou, float32, certificate, target)
        facts = {"certificate": certificate.as_dict(), "val_miou": miou, "valid": not why, "why": why}
        rows.append({**asdict(form), **facts})
    return rows, judged


def _plain(target: Target) -> Form:
    """The form that the others' accuracy is held against."""
    return replace(engines.REFERENCE, threads=target.threads)


def _deployed(forms: list[dict[str, Any]], chosen: int | None, target: Target) -> Form:
    """The chosen form; where none is valid, the plain one."""
    if chosen is None:
        return _plain(target)
    return Form(*(forms[chosen][key] for key in ("engine", "precision", "threads", "device")))


def _open(model: Path, form: Form) -> Session:
    return engines.open_session(model, form.engine, form.precision, form.threads, form.device)


def objection(miou: float, float32: float, certificate: latency.Certificate, target: Target) -> str:
    """Why a form may not be deployed; empty where it may."""
    if abs(miou - float32) > MIOU:
        return f"val mIoU {miou:.2%} is more than 0.1 point from float32's {float32:.2%}"
    if not certificate.stable and not target.accept_unstable:
        span = f"{certificate.p95_low_ms:.1f} to {certificate.p95_high_ms:.1f} ms"
        return f"unstable latency: the p95 is anywhere from {span} (target.accept_unstable is off)"
    return ""


def fastest(forms: list[dict[str, Any]]) -> int | None:
    """Index of the valid form with the lowest p95; None where no form is valid."""
    valid = [place for place, form in enumerate(forms) if form["valid"]]
    return min(valid, key=lambda place: forms[place]["certificate"]["p95_ms"], default=None)


def described(matrices: np.ndarray, space: LabelSpace) -> dict[str, Any] | None:
    """A split's scores by name, shares 0..1; None for a split without labels."""
    if not len(matrices):
        return None
    result = scores(matrices)
    shares = {name: getattr(result, name) for name in SHARES}
    iou = dict(zip(space.classes, result.iou, strict=True))
    return {**shares, "iou": iou, "classes_present": result.classes_present}


def p95(candidate: dict[str, Any]) -> float | None:
    """Of the chosen form, milliseconds; None where there is none."""
    return None if candidate["form"] is None else candidate["forms"][candidate["form"]]["certificate"]["p95_ms"]


def leader(candidates: list[dict[str, Any]], budget_ms: float) -> dict[str, Any]:
    """The best validation mIoU within the budget, else the best of all: what the pictures and metrics show."""

    def rank(candidate: dict[str, Any]) -> tuple[bool, float]:
        latency_ms = p95(candidate)
        return latency_ms is not None and latency_ms <= budget_ms, candidate["val"]["miou"]

    return max(candidates, key=rank)


def summary(best: dict[str, Any], budget_ms: float) -> dict[str, Any]:
    """metrics.json: the leader, flat."""
    latency_ms = p95(best)
    measured = {f"val_{name}": best["val"][name] for name in SHARES}
    measured |= {f"test_{name}": best["test"][name] for name in SHARES} if best["test"] else {}
    measured |= {f"{OFFICIAL}_val_miou": best[OFFICIAL]["miou"]} if best[OFFICIAL] else {}
    each = best["val_by_source"] | best[ELSEWHERE]  # one column a source, trained on or not: so experiments line up
    measured |= {f"miou_on_{name}": found["miou"] for name, found in each.items()} if len(each) > 1 else {}
    within = latency_ms is not None and latency_ms <= budget_ms
    return {"leader": best["name"], **measured, "p95_ms": latency_ms, "within_budget": within}


def _resolution(scenes: list[Scene], size: tuple[int, int]) -> str:
    """How predictions came to the labels' own resolution, as words."""
    if all((scene.height, scene.width) == size for scene in scenes):
        return "at the labels' own resolution, which is the input's"
    return f"at the labels' own resolution, ids brought there by nearest neighbour from {size[1]}x{size[0]}"
