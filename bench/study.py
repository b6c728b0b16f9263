"""A study of published effects, in kind and at this machine's size: some settings against each other, three seeds each.

    python -m bench.study loss MIRROR [--seeds 1 --seeds 2]

Reads params/studies/NAME.yaml: `base` and each variant are settings that replace params.yaml's, by dotted key. Runs go
to .state/bench/studies.csv line by line, so that a broken study goes on where it was, and what two studies share is
trained once. When no run is missing, docs/studies/NAME.md and NAME.png are written. Nothing is chosen by the test
split, which is shown beside the validation split.
"""

import argparse
import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from safetensors.torch import save_file

from bench import course
from roadseg import closure, figures, paths
from roadseg.config import replaced
from roadseg.deploy import device
from roadseg.errors import reported

STUDIES, DOCS = Path("params/studies"), Path("docs/studies")
RUN = ["settings", "seed"]
"""What says which run a row is."""
COLUMNS = [*RUN, "val_miou", "test_miou", "minutes", "steps", "device"]


def row(params: dict[str, Any], study: dict[str, Any], variant: str, seed: int) -> dict[str, Any]:
    """One training, after the one that the variant starts from, if any."""
    name = digest(params, study, variant)
    settings = study["base"] | study["variants"][variant] | {"seed": seed}
    if before := study.get("before", {}).get(variant):
        first = course.trained(course.prepare(yaml.safe_dump(replaced(params, settings | before))))
        save_file({name: value.contiguous() for name, value in first.net.state_dict().items()}, "before.safetensors")
        settings |= {"train.initial": "before.safetensors"}
    made = course.trained(course.prepare(yaml.safe_dump(replaced(params, settings))))
    return {
        "settings": name,
        "seed": seed,
        **{f"{split}_miou": found.miou for split, found in made.scores.items()},
        "minutes": made.seconds / 60,
        "steps": made.steps,
        "device": f"{processor()}, torch {torch.__version__}",
    }


def processor() -> str:
    """What trains: the GPU, or the CPU with how many threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    found = device.fingerprint("cpu")
    return f"{found['cpu']} ({', '.join(found['isa'])}), {torch.get_num_threads()} thread(s)"


def digest(params: dict[str, Any], study: dict[str, Any], variant: str) -> str:
    """Of all settings of a variant and of the code that trains, so that what has changed is run anew."""
    settings = replaced(params, study["base"] | study["variants"][variant])
    text = yaml.safe_dump([settings, study.get("before", {}).get(variant), closure.digest(["roadseg.stages.training"])])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def told(study: dict[str, Any], frame: pd.DataFrame) -> str:
    """What came of a study: a table, and whether the published order holds here."""
    of_variant = frame.groupby("variant", sort=False)
    ranked, minutes = of_variant[["val_miou", "test_miou"]].agg(["mean", "std"]), of_variant["minutes"].median()
    means = ranked["val_miou"]["mean"]
    rows = [
        f"| {name} | {means[name]:.1%} ± {ranked['val_miou']['std'][name]:.1%} "
        f"| {ranked['test_miou']['mean'][name]:.1%} ± {ranked['test_miou']['std'][name]:.1%} "
        f"| {minutes[name]:.2f} | {len(frame[frame['variant'] == name])} |"
        for name in study["variants"]
    ]
    as_published = all(means[better] >= means[worse] for better, worse in pairwise(study["order"]))
    holds = "holds" if as_published else "does not hold"
    found, published = ", ".join(means.sort_values(ascending=False).index), ", ".join(study["order"])
    before = " Minutes leave out what a variant trained before." if "before" in study else ""
    return "\n".join(
        [
            "| | mIoU val | mIoU test | minutes | n |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"The published order ({published}) {holds} here: by the mean of the validation split it is {found}. "
            f"± is the standard deviation over seeds, minutes are their median.{before}",
        ]
    )


def page(name: str, study: dict[str, Any], frame: pd.DataFrame) -> str:
    """The study's page: its question, what is published, what was found, and by which settings on which machine."""
    settings = yaml.safe_dump(
        {key: study[key] for key in ("seeds", "base", "variants", "before") if key in study},
        sort_keys=False,
        default_flow_style=None,
    )
    return "\n".join(
        [
            f"# {study['question']}",
            "",
            f"Published: {study['published'].strip()}",
            "",
            told(study, frame),
            "",
            f"![{study['question']}]({name}.png)",
            "",
            f"Trained on {'; '.join(sorted(set(frame['device'])))}. Settings are those of params.yaml but",
            "",
            "```yaml",
            settings.strip(),
            "```",
            "",
            f"Again: `python -m bench.study {name} MIRROR`.",
            "",
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
    runs, docs = paths.state("bench", "studies.csv").resolve(), DOCS.resolve()
    if not runs.exists():
        pd.DataFrame(columns=COLUMNS).to_csv(runs, index=False)
    variants = pd.DataFrame([{"variant": name, "settings": digest(params, study, name)} for name in study["variants"]])
    with course.workspace(options.mirror):
        for seed in options.seeds or study["seeds"]:
            for variant, settings in variants.itertuples(index=False):
                done = pd.read_csv(runs)
                if done[(done["settings"] == settings) & (done["seed"] == seed)].empty:
                    made = pd.DataFrame([row(params, study, variant, seed)], columns=COLUMNS)
                    made.to_csv(runs, mode="a", header=False, index=False)
    frame = variants.merge(pd.read_csv(runs).drop_duplicates(RUN))
    frame = frame[frame["seed"].isin(study["seeds"])]
    missing = len(variants) * len(study["seeds"]) - len(frame)
    if missing:
        print(frame.to_markdown(index=False))
        print(f"{missing} runs are missing: {docs / options.study}.md is written when all are there")
        return
    docs.mkdir(parents=True, exist_ok=True)
    figures.study(frame, list(study["variants"])).savefig(docs / f"{options.study}.png")
    (docs / f"{options.study}.md").write_text(page(options.study, study, frame), encoding="utf-8")
    print(told(study, frame))


if __name__ == "__main__":
    with reported("bench.study"):
        main()
