"""The best candidate under the budget becomes the registered champion, if it beats the one that reigns.

In: models/evaluate/{candidates.json, scenes/NAME.npz}, the exported models, the registry's champion.
Out: models/promote/{decision.json, card.md, bundle/} (the bundle of whoever reigns after this), and in MLflow a version
with its records and the alias `champion`. A second run on the same input changes nothing.

Under `dvc exp run`, and under ROADSEG_TRACKING=off, decision and bundle are written and the registry is left alone.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from roadseg import paths, tracking
from roadseg.config import Config
from roadseg.deploy import bundle, device
from roadseg.errors import StageFailure, UserError
from roadseg.labels import LabelSpace
from roadseg.scenes import sources
from roadseg.scenes.index import labelled
from roadseg.stages import champion, promotion_card
from roadseg.stages.contest import Contender, Decision, decide, nobody_fit
from roadseg.stages.stage import Stage, experiment, stage
from roadseg.tracking import Tracker, provenance

if TYPE_CHECKING:  # importing it imports mlflow, which `tracking.connect` does while the server gets ready
    from roadseg.tracking.registry import Registry, Version

Entry = dict[str, Any]
"""One of candidates.json."""


def run(config: Config) -> None:
    """Decides, registers, writes models/promote/. Raises StageFailure where no candidate may be deployed."""
    with stage("promote") as running:
        space = sources.space_of(config)
        _check_floors(config, space)
        entries: list[Entry] = json.loads((paths.EVALUATE / "candidates.json").read_text(encoding="utf-8"))
        if not tracking.is_on():
            _promote(config, space, entries, running, tracking.NullTracker(), None)
            return
        with tracking.connect() as tracker, tracking.open_registry() as registry:
            _promote(config, space, entries, running, tracker, registry)


def hands_off() -> str:
    """Why the registry is left alone; empty where it is not."""
    if not tracking.is_on():
        return f"{tracking.SWITCH}=off"
    if experiment():
        return "this is a DVC experiment"
    return ""


def _promote(
    config: Config,
    space: LabelSpace,
    entries: list[Entry],
    running: Stage,
    tracker: Tracker,
    registry: "Registry | None",
) -> None:
    name = config.target.registered_name(space.name)
    version = registry.find(name) if registry else None
    held = champion.fetch(registry, version) if registry and version else None
    candidates = [_contender(config, space, entry, held) for entry in entries]
    reigning = champion.contender(config, space, version, held, candidates) if version and held else None
    decision = decide(candidates, reigning, config.target, space.classes, config.seed)
    leader = json.loads((paths.EVALUATE / "metrics.json").read_text(encoding="utf-8"))["leader"]
    runs = {entry["name"]: _record(tracker, entry, space, leads=entry["name"] == leader) for entry in entries}
    if why := nobody_fit(candidates, config.target, space.classes):
        stays = f"; version {version.number} stays champion" if version else ""
        raise StageFailure(f"promote: {why}{stays}: change `target`, or what the search may choose from (params.yaml)")
    assert decision.winner is not None, "a fit candidate wins, or loses to somebody"
    card = promotion_card.render(name, decision, config.target, space.classes, entries[0]["protocol"])
    folder = running.folder(paths.PROMOTE / "bundle")
    if decision.outcome == "promoted":
        entry = next(one for one in entries if one["name"] == decision.winner.name)
        sample = labelled(config, "val")[0].image
        bundle.assemble(entry, config, folder, decision={"reason": decision.reason}, sample=sample)
        if registry and not hands_off():
            version = _register(registry, name, folder, entry, decision, card, version, runs[entry["name"]])
    else:
        assert held is not None, "only a champion is kept"
        shutil.copytree(held, folder, dirs_exist_ok=True)
    running.aside(paths.PROMOTE / "card.md").write_text(card, encoding="utf-8")
    running.json(paths.PROMOTE / "decision.json", _described(name, decision, version))
    what = f"registry left alone: {hands_off()}" if hands_off() or not version else f"version {version.number}"
    Console().print(f"{decision.outcome}: {decision.reason} [{name}, {what}]", markup=False)


def _contender(config: Config, space: LabelSpace, entry: Entry, held: Path | None) -> Contender:
    """A candidate, in the champion's form where it is the champion, whose bundle is in `held`."""
    place = champion.form_of(entry, champion.read(held), config.target.budget_ms) if held else entry["form"]
    form = None if place is None else entry["forms"][place]
    unfit = "" if form else "; ".join(f"{one['engine']} {one['precision']}: {one['why']}" for one in entry["forms"])
    if form:
        here, there = device.device_id(form["device"]), form["certificate"]["device_id"]
        if here != there:
            unfit = f"its latency was measured on {there} and this is {here}: run `dvc repro -f -s evaluate`"
    if form and place != entry["form"] and not unfit:
        val = champion.judged(config, space, entry, form)
    else:
        with np.load(paths.EVALUATE / "scenes" / f"{entry['name']}.npz") as matrices:
            val = matrices["val"]
    test = entry["test"]["miou"] if entry["test"] else None
    return Contender(entry["name"], entry["onnx_sha256"], form, val, test, unfit=unfit)


def _record(tracker: Tracker, entry: Entry, space: LabelSpace, *, leads: bool) -> str | None:
    """The id of the MLflow run of this finalist, with evaluate's latest results written to it once.

    Found by its training's key; a finalist that DVC restored from its cache has no run here and gets one. The pictures
    are the leader's, and so go to its run alone.
    """
    results = hashlib.sha256(json.dumps([entry, leads]).encode()).hexdigest()
    facts = {
        "roadseg.finalist": entry["name"],
        "roadseg.onnx_sha256": entry["onnx_sha256"],
        "roadseg.results_sha256": results,
    }
    if done := tracker.latest(facts):
        return done.id
    run = tracker.latest({"roadseg.key": entry["training"]})
    if run is None:
        with tracker.parent(kind="promote", key=entry["training"], name=f"finalist-{entry['name']}", tags=facts) as run:
            run.params({key: entry[key] for key in ("network", "loss", "crop", "learning_rate")})
    for split in ("val", "test"):
        if scores := entry[split]:
            flat = {f"deployed_{split}_{key}": value for key, value in scores.items() if key != "iou"}
            run.metrics(flat | {f"deployed_{split}_iou_{key}": value for key, value in scores["iou"].items()})
    for form in entry["forms"]:
        run.metrics({f"p95_ms_{form['engine']}_{form['precision']}": form["certificate"]["p95_ms"]})
    of_leader = ("confusion.png", "slices.csv", "slices.png", "confused.csv", "across.csv", "worst.csv", "overlays")
    for name in ("confusion.csv", "latency.csv", "frontier.png", *of_leader * leads):
        if (path := paths.EVALUATE / name).exists():
            run.artifact(path, f"evaluate/{name}" if path.is_dir() else "evaluate")
    run.tags({**facts, "roadseg.space": space.name})
    return run.id or None


def _register(
    registry: "Registry",
    name: str,
    folder: Path,
    entry: Entry,
    decision: Decision,
    card: str,
    before: "Version | None",
    run_id: str | None,
) -> "Version":
    form = entry["forms"][entry["form"]]
    facts = {
        "roadseg.finalist": entry["name"],
        "roadseg.network": entry["network"],
        "roadseg.onnx_sha256": entry["onnx_sha256"],
        "roadseg.space": entry["protocol"]["space"],
        "roadseg.val_miou": f"{entry['val']['miou']:.4f}",
        "roadseg.test_miou": f"{entry['test']['miou']:.4f}" if entry["test"] else "",
        "roadseg.p95_ms": f"{form['certificate']['p95_ms']:.2f}",
        "roadseg.form": f"{form['engine']} {form['precision']}, {form['threads']} threads, {form['device']}",
        "roadseg.device_id": form["certificate"]["device_id"],
        "roadseg.reason": decision.reason,
    }
    trained = paths.EXPORT / "finalists" / entry["name"]
    tags = {**provenance.tags(), **facts}
    made = registry.register(name, folder, trained, tags=tags, description=card, run_id=run_id)
    reign = {"reason": decision.reason, "after": before.number if before else None}
    registry.crown(made, reign, f"Champion: version {made.number}. {decision.reason}.")
    return made


def _described(name: str, decision: Decision, version: "Version | None") -> dict[str, Any]:
    """decision.json."""
    return {
        "outcome": decision.outcome,
        "reason": decision.reason,
        "model": name,
        "champion_version": version.number if version else None,
        "registry": hands_off() or "written",
        "contenders": decision.rows,
    }


def _check_floors(config: Config, space: LabelSpace) -> None:
    for name in config.target.floors:
        if name not in space.classes:
            valid = ", ".join(space.classes)
            raise UserError(f"params.yaml: target.floors: {name!r} is no class of {space.name}; valid: {valid}")
