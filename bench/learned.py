"""Learned, not lucky: does what the search found hold when it is trained again?

    python -m bench.learned

Reads models/search/ and models/evaluate/ of a finished `dvc repro`; trains the search's best and its median trial and
the best trial of each network again, with new seeds and the search's own budget, and prints three tables for
docs/results.md: the champion against a pixel classifier without context, best against median, networks against seeds.
Finished trainings are kept in .state/bench/, so that a broken run goes on.
"""

import json
import statistics
from dataclasses import asdict

import pandas as pd
from rich.progress import track

from bench import context
from roadseg import paths
from roadseg.config import read
from roadseg.stages import training
from roadseg.stages.training import Course, Recipe

SEEDS = (101, 102, 103)


def chosen(trials: pd.DataFrame) -> dict[str, Recipe]:
    """The recipes to train again, by the part they play: best, median, and best of each network."""
    complete = trials[trials["state"] == "complete"].sort_values("val_miou", ascending=False)
    rows = {"best": complete.iloc[0], "median": complete.iloc[len(complete) // 2]}
    rows |= {f"best {network}": group.iloc[0] for network, group in complete.groupby("network")}
    return {
        part: Recipe(row["network"], row["loss"], float(row["learning_rate"]), float(row["crop"]))
        for part, row in rows.items()
    }


def retrained(course: Course, recipe: Recipe, seed: int) -> float:
    """Validation mIoU of the recipe, trained from scratch with `seed` for the search's budget; kept once known."""
    epochs = course.config.search.epochs
    name = training.key(course.config, bench=asdict(recipe), seed=seed, epochs=epochs)
    record = paths.state("bench", f"{name}.json")
    if not record.exists():
        learner = course.begin(recipe, epochs=epochs, seed=seed)
        for _ in course.fit(learner, recipe, reports=1):
            pass
        record.write_text(json.dumps({"val_miou": course.score(learner).miou}))
    return float(json.loads(record.read_text())["val_miou"])


def table(course: Course, recipes: dict[str, Recipe]) -> pd.DataFrame:
    """One row a part: recipe, mean and spread (standard deviation) of the validation mIoU over SEEDS."""
    runs = [(part, recipe, seed) for part, recipe in recipes.items() for seed in SEEDS]
    scores: dict[str, list[float]] = {}
    for part, recipe, seed in track(runs, description="retraining"):
        scores.setdefault(part, []).append(retrained(course, recipe, seed))
    return pd.DataFrame(
        {
            "part": part,
            "recipe": recipes[part].name,
            "mean": statistics.mean(values),
            "spread": statistics.stdev(values),
            "lowest": min(values),
            "highest": max(values),
            "n": len(values),
        }
        for part, values in scores.items()
    )


def verdicts(rows: pd.DataFrame) -> dict[str, bool]:
    """What must hold: the order of best and median, and networks further apart than seeds."""
    by_part = rows.set_index("part")
    networks = by_part[by_part.index.str.startswith("best ")]
    return {
        "best above median": bool(by_part.loc["best", "mean"] > by_part.loc["median", "mean"]),
        "networks differ by more than seeds do": bool(networks["mean"].std() > networks["spread"].mean()),
    }


def main() -> None:
    course = Course.open(read())
    rows = table(course, chosen(pd.read_csv(paths.SEARCH / "trials.csv")))
    candidates = json.loads((paths.EVALUATE / "candidates.json").read_text())
    champion = max(candidates, key=lambda candidate: candidate["val"]["miou"])
    baseline = context.run()
    print(rows.to_markdown(index=False, floatfmt=".4f"))
    print(f"\nchampion {champion['name']}: test mIoU {champion['test']['miou']:.2%}")
    print(f"pixel classifier without context: test mIoU {baseline['miou']:.2%}")
    for what, holds in verdicts(rows).items():
        print(f"{what}: {'yes' if holds else 'NO'}")


if __name__ == "__main__":
    main()
