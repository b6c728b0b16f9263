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

from bench import context
from roadseg import paths
from roadseg.bar import track
from roadseg.config import read
from roadseg.errors import reported
from roadseg.stages import registered, training
from roadseg.stages.training import Course, Recipe

SEEDS = (101, 102, 103)
ABOVE = 0.15
"""How far above the classifier the champion must be, test mIoU."""
AT_MOST = 0.35
"""What the classifier may reach: more, and the scenes would need no context."""


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
    name = training.key(course, [recipe.network], bench=asdict(recipe), seed=seed, epochs=epochs)
    record = paths.state("bench", f"{name}.json")
    if not record.exists():
        learner = course.begin(recipe, epochs=epochs, seed=seed)
        for _ in course.fit(learner, recipe, epochs=epochs, reports=1):
            pass
        record.write_text(json.dumps({"val_miou": course.score(learner).miou}))
    return float(json.loads(record.read_text())["val_miou"])


def scored(course: Course, recipes: dict[str, Recipe]) -> dict[str, list[float]]:
    """The validation mIoU of each part, in the order of SEEDS."""
    runs = [(part, recipe, seed) for part, recipe in recipes.items() for seed in SEEDS]
    scores: dict[str, list[float]] = {}
    for part, recipe, seed in track(runs, description="retraining"):
        scores.setdefault(part, []).append(retrained(course, recipe, seed))
    return scores


def table(recipes: dict[str, Recipe], scores: dict[str, list[float]]) -> pd.DataFrame:
    """One row a part: recipe, mean and spread (standard deviation) of the validation mIoU over SEEDS."""
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


def verdicts(scores: dict[str, list[float]], champion: float, baseline: float) -> dict[str, bool]:
    """What must hold: the champion against the classifier (test mIoU, 0..1), the order of best and median in every
    seed, and, of several networks, these further apart than seeds."""
    networks = [values for part, values in scores.items() if part.startswith("best ")]
    held = {
        f"the champion is {ABOVE:.0%} above the classifier": champion - baseline >= ABOVE,
        f"the classifier stays at {AT_MOST:.0%} or below": baseline <= AT_MOST,
        "best above median in every seed": all(a > b for a, b in zip(scores["best"], scores["median"], strict=True)),
    }
    if networks[1:]:
        apart = statistics.stdev([statistics.mean(values) for values in networks])
        seeds = statistics.mean([statistics.stdev(values) for values in networks])
        held["networks differ by more than seeds do"] = apart > seeds
    return held


def main() -> None:
    config = registered.pinned(read())
    course = Course.open(config)
    recipes = chosen(pd.read_csv(paths.SEARCH / "trials.csv"))
    scores = scored(course, recipes)
    champion = json.loads((paths.PROMOTE / "decision.json").read_text())["contenders"][0]
    baseline = context.run(config.data.trained)
    print(table(recipes, scores).to_markdown(index=False, floatfmt=".4f"))
    print(f"\nchampion {champion['name']}: test mIoU {champion['test_miou']:.2%}")
    print(f"pixel classifier without context: test mIoU {baseline['miou']:.2%}")
    held = verdicts(scores, champion["test_miou"], baseline["miou"])
    for what, holds in held.items():
        print(f"{what}: {'yes' if holds else 'NO'}")
    raise SystemExit(not all(held.values()))


if __name__ == "__main__":
    with reported("bench.learned"):
        main()
