"""What evaluate leaves for people, and the tables that DVC, MLflow and the README show.

Out, under models/evaluate/: of every finalist leader.csv, classes.csv, confusion.csv, latency.csv, frontier.csv/.png;
of the leader confusion.png, slices.csv/.png, confused.csv, across.csv, worst.csv, overlays/ (image, label, prediction)
and predictions/SOURCE/SPLIT/NAME.png, the train ids of scenes that have no labels (SEQUENCE_NAME.png of those
that share a name).
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from rich.console import Console
from rich.table import Table

from roadseg import figures, paths
from roadseg.bar import track
from roadseg.config import Config
from roadseg.deploy import judge, slices, tables
from roadseg.deploy.engines import Session
from roadseg.deploy.judge import Verdict
from roadseg.errors import UserError
from roadseg.labels import LabelSpace
from roadseg.scenes import png, sources
from roadseg.scenes.index import ELSEWHERE, Scene, unlabelled
from roadseg.stages.stage import Stage

WORST = 4  # scenes of the lowest mIoU that are shown
EXAMPLES = 3  # scenes of each source out of domain


def write(
    running: Stage,
    config: Config,
    candidates: list[dict[str, Any]],
    best: dict[str, Any],
    judged: dict[str, dict[str, Verdict]],
    session: Session,
    scenes: dict[str, list[Scene]],
    facts: pd.DataFrame,
) -> None:
    """Everything above, and a table in the terminal. `session` is the leader's, in its chosen form."""
    space, budget = sources.space_of(config), config.target.budget_ms
    matrices = {name: {s: v.scenes for s, v in verdicts.items()} for name, verdicts in judged.items()}
    leading = judged[best["name"]]
    cut = {split: (verdict, facts_of(scenes[split], facts)) for split, verdict in leading.items()}
    taught = np.array([facts.loc[facts["split"] == "train", f"share_{name}"].gt(0).any() for name in space.classes])
    edges = slices.thirds(facts.loc[facts["split"] == "train", "brightness"])
    worst = slices.worst(leading["val"].scenes, cut["val"][1])
    frames = {
        "leader": tables.leader(best, space.classes),
        "classes": tables.classes(matrices, space.classes),
        "confusion": tables.confusion(matrices, space.classes),
        "latency": tables.latency(candidates),
        "frontier": tables.frontier(candidates, budget),
        "slices": pd.concat([slices.table(s, v.scenes, v.bands, f, edges) for s, (v, f) in cut.items() if len(f)]),
        "confused": slices.confused(leading["val"].scenes.sum(axis=0), space.classes),
        "across": slices.across("+".join(config.data.trained), {s: (v.scenes, f) for s, (v, f) in cut.items()}, taught),
        "worst": worst,
    }
    for name, frame in frames.items():
        frame.to_csv(running.aside(paths.EVALUATE / f"{name}.csv"), index=False)
    pictures = {
        "frontier": figures.frontier(frames["frontier"], budget),
        "confusion": figures.confusion(leading["val"].scenes.sum(axis=0), space.classes),
        "slices": figures.slices(frames["slices"]),
    }
    for name, figure in pictures.items():
        figure.savefig(running.aside(paths.EVALUATE / f"{name}.png"), format="png")
    shown = _examples(worst, scenes["val"]) | _abroad(cut[ELSEWHERE][1], scenes[ELSEWHERE])
    _overlays(running.folder(paths.EVALUATE / "overlays"), shown, session, space)
    _predictions(running.folder(paths.EVALUATE / "predictions"), config, session)
    _show(candidates, best, budget)
    _show_across(frames["across"])


def facts_of(scenes: Sequence[Scene], facts: pd.DataFrame) -> pd.DataFrame:
    """The rows of scenes.csv of these scenes, in their order. UserError where one is not profiled."""
    found = facts.set_index("image")
    names = [scene.image.as_posix() for scene in scenes]
    if lost := [name for name in names if name not in found.index]:
        raise UserError(f"{lost[0]} is not in {paths.PROFILE / 'scenes.csv'}: run the profile stage")
    return found.loc[names].reset_index()


def _examples(ranked: pd.DataFrame, scenes: Sequence[Scene]) -> dict[str, Scene]:
    """The validation scenes that are shown: the best, the one in the middle, and the worst. `ranked` is worst first."""
    of = {scene.image.as_posix(): scene for scene in scenes}
    ordered = [of[image] for image in ranked["image"]]
    named = {f"worst-{place + 1}": scene for place, scene in enumerate(ordered[:WORST])}
    return {"best": ordered[-1], "median": ordered[len(ordered) // 2]} | named


def _abroad(facts: pd.DataFrame, scenes: Sequence[Scene]) -> dict[str, Scene]:
    """Scenes of each source out of domain, spread over it."""
    named = {}
    for source in dict.fromkeys(facts["source"]):
        of_source = [scene for scene, one in zip(scenes, facts["source"], strict=True) if one == source]
        shown = min(EXAMPLES, len(of_source))
        for place in range(shown):
            named[f"{source}-{place + 1}"] = of_source[place * len(of_source) // shown]
    return named


def _overlays(folder: Path, named: dict[str, Scene], session: Session, space: LabelSpace) -> None:
    """Image, label and prediction of each scene, side by side."""
    for name, scene in named.items():
        image, label = judge.read(scene)
        ids = session.postprocess(session.infer(session.preprocess(image)), label.shape)
        image = np.asarray(Image.fromarray(image).resize((label.shape[1], label.shape[0])))
        Image.fromarray(figures.triptych(image, label, ids, space)).save(folder / f"{name}.png")


def _predictions(folder: Path, config: Config, session: Session) -> None:
    """The train ids that the model gives to scenes without labels, at the images' own size."""
    scenes = unlabelled(config, config.evaluate.unlabelled)
    named = Counter((source, scene.split, scene.image.stem) for source, scene in scenes)
    for source, scene in track(scenes, "unlabelled scenes", transient=True):
        name = scene.image.stem
        if named[source, scene.split, name] > 1:  # two drives may count their frames alike
            name = f"{scene.sequence.replace('/', '_')}_{name}"
        path = folder / source / scene.split / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        png.write_ids(path, session.run(png.read_rgb(scene.image)))


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


def _show_across(across: pd.DataFrame) -> None:
    """The leader on each source, where there are several."""
    if across["source"].nunique() < 2:
        return
    table = Table("source", "split", "scenes", "mIoU", "of the classes taught", title="The leader across sources")
    for row in across.to_dict("records"):
        of_taught = f"{row['miou_taught']:.2%} ({row['classes_taught']})" if row["classes_taught"] else ""
        whole = f"{row['miou']:.2%} ({row['classes_present']})"
        table.add_row(row["source"], row["split"], str(row["scenes"]), whole, of_taught)
    Console().print(table)
