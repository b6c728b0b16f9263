"""The exported finalists, judged and timed in every form that they could be deployed in.

In: models/export/finalists/NAME/{model.onnx, recipe.json}, the labelled validation and test scenes.
Out: models/evaluate/: candidates.json (what promote decides on), metrics.json (the leader, for `dvc metrics show`),
leader.csv, classes.csv, confusion.csv, latency.csv, frontier.csv and pictures, overlays/{best,median,worst}.png, and
scenes/NAME.npz (arrays "val" and "test": per-scene confusion int64 [S, C, C] of the chosen form).

Whatever is chosen here is chosen on the validation split; the test split is only reported.
"""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from roadseg import figures, paths
from roadseg.config import Config, Target
from roadseg.deploy import engines, judge, latency, tables
from roadseg.deploy.engines import Form, Session
from roadseg.deploy.tables import Judged
from roadseg.errors import UserError
from roadseg.labels import LabelSpace
from roadseg.metrics import scores
from roadseg.scenes import sources
from roadseg.scenes.index import Scene, labelled
from roadseg.stages.stage import Stage, stage

MIOU = 0.001  # 0.1 point: how far a form's mIoU may be from float32's
SHARES = ("miou", "pixel_accuracy", "mean_accuracy", "mean_dice")


def run(config: Config) -> None:
    """Judges and times every finalist, and writes models/evaluate/."""
    with stage("evaluate") as running:
        space = sources.space_of(config)
        scenes = {split: labelled(config, split) for split in ("train", "val", "test")}
        if not scenes["val"]:
            raise UserError("no labelled scene is in the val split: look at the index.csv of each of data.sources")
        assessed = [
            assess(source, config.target, space, scenes) for source in paths.finalists(paths.EXPORT / "finalists")
        ]
        candidates, judged = [one for one, _ in assessed], {one["name"]: matrices for one, matrices in assessed}
        running.json(paths.EVALUATE / "candidates.json", candidates)
        folder = running.folder(paths.EVALUATE / "scenes")
        for name, matrices in judged.items():
            np.savez_compressed(folder / f"{name}.npz", allow_pickle=False, **matrices)
        best = leader(candidates, config.target.budget_ms)
        running.json(paths.EVALUATE / "metrics.json", summary(best, config.target.budget_ms))
        _tables(running, candidates, best, judged, space, config.target.budget_ms)
        _pictures(running, best, judged[best["name"]]["val"], scenes["val"], space)
        _show(candidates, best, config.target.budget_ms)


def assess(
    source: Path, target: Target, space: LabelSpace, scenes: dict[str, list[Scene]]
) -> tuple[dict[str, Any], Judged]:
    """One finalist: its entry of candidates.json, and its per-scene confusions in the chosen form."""
    recipe = json.loads((source / "recipe.json").read_text(encoding="utf-8"))
    model, name = source / "model.onnx", recipe["name"]
    forms, judged = _forms(model, name, target, scenes["val"], len(space.classes))
    chosen = fastest(forms)
    deployed = _plain(target) if chosen is None else _form(forms[chosen])
    session = _open(model, deployed)
    test = judge.judge(session, scenes["test"], len(space.classes), description=f"{name}: test")
    height, width = session.size
    candidate = {
        **{key: recipe[key] for key in ("name", "network", "loss", "crop", "learning_rate", "training")},
        "onnx": model.as_posix(),
        "onnx_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "input": {"height": height, "width": width},
        "forms": forms,
        "form": chosen,
        "val": described(judged[deployed], space),
        "test": described(test, space),
        "protocol": {
            "space": space.name,
            "splits": {split: len(listed) for split, listed in scenes.items()},
            "resolution": _resolution(scenes["val"] + scenes["test"], (height, width)),
            "pretraining": "none",
        },
    }
    return candidate, {"val": judged[deployed], "test": test}


def _forms(
    model: Path, name: str, target: Target, scenes: list[Scene], classes: int
) -> tuple[list[dict[str, Any]], dict[Form, np.ndarray]]:
    """A model's forms as candidates.json lists them, and what each said of the validation scenes."""
    plain, offered = _plain(target), engines.forms(target.engines, target.device, target.threads)
    judged = {
        form: judge.judge(_open(model, form), scenes, classes, description=f"{name}: {form}")
        for form in dict.fromkeys([plain, *offered])
    }
    float32 = scores(judged[plain]).miou
    image, _ = judge.read(scenes[0])
    rows = []
    for form in track(offered, description=f"Timing {name}", auto_refresh=False, transient=True):
        certificate = latency.certify(_open(model, form), image)
        miou = scores(judged[form]).miou
        why = objection(miou, float32, certificate, target)
        facts = {"certificate": certificate.as_dict(), "val_miou": miou, "valid": not why, "why": why}
        rows.append({**asdict(form), **facts})
    return rows, judged


def _plain(target: Target) -> Form:
    """The form that the others' accuracy is held against."""
    return replace(engines.REFERENCE, threads=target.threads)


def _form(row: dict[str, Any]) -> Form:
    return Form(row["engine"], row["precision"], row["threads"], row["device"])


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
    within = latency_ms is not None and latency_ms <= budget_ms
    return {"leader": best["name"], **measured, "p95_ms": latency_ms, "within_budget": within}


def _resolution(scenes: list[Scene], size: tuple[int, int]) -> str:
    """How predictions came to the labels' own resolution, as words."""
    if all((scene.height, scene.width) == size for scene in scenes):
        return "at the labels' own resolution, which is the input's"
    return f"at the labels' own resolution, ids brought there by nearest neighbour from {size[1]}x{size[0]}"


def _tables(
    running: Stage,
    candidates: list[dict[str, Any]],
    best: dict[str, Any],
    judged: dict[str, Judged],
    space: LabelSpace,
    budget_ms: float,
) -> None:
    frames = {
        "leader": tables.leader(best, space.classes),
        "classes": tables.classes(judged, space.classes),
        "confusion": tables.confusion(judged, space.classes),
        "latency": tables.latency(candidates),
        "frontier": tables.frontier(candidates, budget_ms),
    }
    for name, frame in frames.items():
        frame.to_csv(running.aside(paths.EVALUATE / f"{name}.csv"), index=False)
    picture = figures.frontier(frames["frontier"], budget_ms)
    picture.savefig(running.aside(paths.EVALUATE / "frontier.png"), format="png")


def _pictures(
    running: Stage, best: dict[str, Any], matrices: np.ndarray, scenes: list[Scene], space: LabelSpace
) -> None:
    """The leader's confusion matrix, and its best, median and worst validation scene: image, label, prediction."""
    figure = figures.confusion(matrices.sum(axis=0), space.classes)
    figure.savefig(running.aside(paths.EVALUATE / "confusion.png"), format="png")
    folder = running.folder(paths.EVALUATE / "overlays")
    form = engines.REFERENCE if best["form"] is None else _form(best["forms"][best["form"]])
    session = _open(Path(best["onnx"]), form)
    mious = [scores(matrix).miou if matrix.any() else 0.0 for matrix in matrices]
    order = np.argsort(mious, kind="stable")
    for name, place in (("worst", order[0]), ("median", order[len(order) // 2]), ("best", order[-1])):
        image, label = judge.read(scenes[place])
        ids = session.postprocess(session.infer(session.preprocess(image)), label.shape)
        image = np.asarray(Image.fromarray(image).resize((label.shape[1], label.shape[0])))
        Image.fromarray(figures.triptych(image, label, ids, space)).save(folder / f"{name}.png")


def _show(candidates: list[dict[str, Any]], best: dict[str, Any], budget_ms: float) -> None:
    columns = ("candidate", "form", "p50 ms", "p95 ms", "val mIoU", "test mIoU", "")
    table = Table(*columns, title=f"Candidates, budget {budget_ms:g} ms", caption=f"leader: {best['name']}")
    for candidate in candidates:
        for place, form in enumerate(candidate["forms"]):
            timed, chosen = form["certificate"], place == candidate["form"]
            test = f"{candidate['test']['miou']:.2%}" if chosen and candidate["test"] else ""
            note = form["why"] or ("chosen" if chosen else "")
            if chosen and timed["p95_ms"] > budget_ms:
                note += ", over the budget"
            if not timed["stable"]:
                note += " (unstable)"
            words = f"{form['engine']} {form['precision']}"
            times = f"{timed['p50_ms']:.1f}", f"{timed['p95_ms']:.1f}"
            table.add_row(candidate["name"], words, *times, f"{form['val_miou']:.2%}", test, note)
    Console().print(table)
