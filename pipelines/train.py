"""The finalists' training as a Prefect flow, a task a finalist: `python -m pipelines.train` is what dvc.yaml runs."""

from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.utilities.annotations import quote

from pipelines import runs, server
from roadseg import tracking
from roadseg.config import Config, read
from roadseg.errors import reported
from roadseg.stages import registered, train
from roadseg.stages.stage import Stage, stage
from roadseg.stages.training import Course, Recipe
from roadseg.tracking import Parent


@task(name="finalist", cache_policy=NO_CACHE)
def finalist(config: Config, course: Course, recipe: Recipe, parent: Parent) -> Path:
    """Trains one finalist, from its last checkpoint where it has one."""
    return train.train(config, course, recipe, parent)


@flow(name="train", validate_parameters=False)
def run(config: Config, running: Stage) -> None:
    """Trains every finalist and places models/train/."""
    runs.close_stale("train")
    course = Course.open(config)
    study, recipes = train.finalists()
    with (
        tracking.connect() as tracker,
        tracker.parent(kind="search", key=study, name=f"search-{course.space.name}-{study}") as parent,
        runs.turn_on(course.device),
    ):

        def one(recipe: Recipe) -> Path:
            task_run = finalist.with_options(task_run_name=recipe.name)
            return task_run(quote(config), quote(course), quote(recipe), quote(parent))

        trained = train.each(recipes, one)
        train.write(config, course, trained, running)


def main() -> None:
    with reported("train"), stage("train") as running, server.api():
        run(quote(registered.pinned(read())), quote(running))


if __name__ == "__main__":
    main()
