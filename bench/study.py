"""A study of published effects, in kind and at this machine's size: some settings against each other, three seeds each.

    python -m bench.study loss MIRROR [--seeds 1 --seeds 2]

Reads params/studies/NAME.yaml: `base` and each variant are settings that replace params.yaml's, by dotted key. Results
go to .state/bench/studies/NAME.csv line by line, so that a broken study goes on where it was; the last call writes
docs/studies/NAME.md and NAME.png. Nothing is chosen by the test split, which is shown beside the validation split.
"""

import argparse
import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from safetensors.torch import save_file

from bench import course
from roadseg import figures, paths
from roadseg.config import replaced

STUDIES, DOCS = Path("params/studies"), Path("docs/studies")
COLUMNS = ["variant", "settings", "seed", "val_miou", "test_miou", "minutes", "steps"]


def row(params: dict[str, Any], study: dict[str, Any], variant: str, seed: int) -> dict[str, Any]:
    """One training, after the one that the variant starts from, if any."""
    settings = study["base"] | study["variants"][variant] | {"seed": seed}
    if before := study.get("before", {}).get(variant):
        first = course.trained(course.prepare(yaml.safe_dump(replaced(params, settings | before))))
        save_file({name: value.contiguous() for name, value in first.net.state_dict().items()}, "before.safetensors")
        settings |= {"train.initial": "before.safetensors"}
    made = course.trained(course.prepare(yaml.safe_dump(replaced(params, settings))))
    mious = {f"{split}_miou": found.miou for split, found in made.scores.items()}
    named = {"variant": variant, "settings": digest(params, study, variant), "seed": seed}
    return {**named, **mious, "minutes": made.seconds / 60, "steps": made.steps}


def digest(params: dict[str, Any], study: dict[str, Any], variant: str) -> str:
    """Of all settings of a variant, so that a changed study is run anew. Code is no part of it."""
    settings = replaced(params, study["base"] | study["variants"][variant])
    text = yaml.safe_dump([settings, study.get("before", {}).get(variant)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def told(study: dict[str, Any], frame: pd.DataFrame) -> str:
    """The study's page: its question, a table, and whether the published order holds here."""
    ranked = frame.groupby("variant", sort=False)[["val_miou", "test_miou", "minutes"]].agg(["mean", "std"])
    means = ranked["val_miou"]["mean"]
    rows = [
        f"| {name} | {means[name]:.1%} ± {ranked['val_miou']['std'][name]:.1%} "
        f"| {ranked['test_miou']['mean'][name]:.1%} ± {ranked['test_miou']['std'][name]:.1%} "
        f"| {ranked['minutes']['mean'][name]:.1f} | {len(frame[frame['variant'] == name])} |"
        for name in study["variants"]
        if name in means
    ]
    order = [name for name in study["order"] if name in means]
    holds = "holds" if all(means[better] >= means[worse] for better, worse in pairwise(order)) else "does not hold"
    found = ", ".join(means.sort_values(ascending=False).index)
    published = ", ".join(order)
    return "\n".join(
        [
            f"# {study['question']}",
            "",
            f"Published: {study['published'].strip()}",
            "",
            "| | mIoU val | mIoU test | minutes | n |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"The published order ({published}) {holds} here: by the mean of the validation split it is {found}. "
            f"± is the standard deviation over seeds.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=sorted(path.stem for path in STUDIES.glob("*.yaml")))
    parser.add_argument("mirror", type=Path)
    parser.add_argument("--seeds", type=int, action="append")
    options = parser.parse_args()
    study = yaml.safe_load((STUDIES / f"{options.study}.yaml").read_text(encoding="utf-8"))
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    kept, docs = paths.state("bench", f"studies/{options.study}.csv").resolve(), DOCS.resolve()
    kept.parent.mkdir(parents=True, exist_ok=True)
    with course.workspace(options.mirror):
        for seed in options.seeds or study["seeds"]:
            for variant in study["variants"]:
                frame = pd.read_csv(kept) if kept.exists() else pd.DataFrame(columns=COLUMNS)
                same = frame[(frame["settings"] == digest(params, study, variant)) & (frame["seed"] == seed)]
                if same.empty:
                    made = pd.DataFrame([row(params, study, variant, seed)], columns=COLUMNS)
                    made.to_csv(kept, mode="a", header=not kept.exists(), index=False)
    frame = pd.read_csv(kept)
    frame = frame[frame["settings"].isin([digest(params, study, variant) for variant in study["variants"]])]
    docs.mkdir(parents=True, exist_ok=True)
    picture = docs / f"{options.study}.png"
    figures.study(frame, list(study["variants"])).savefig(picture)
    page = f"{told(study, frame)}\n\n![{study['question']}]({picture.name})\n"
    (docs / f"{options.study}.md").write_text(page, encoding="utf-8")
    print(told(study, frame))


if __name__ == "__main__":
    main()
