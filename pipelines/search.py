"""The search as a Prefect flow, a task a trial: `python -m pipelines.search` is what dvc.yaml runs.

A running Prefect server is used where there is one; otherwise the flow brings its own for as long as it lasts.
"""

import pandas as pd
from prefect import flow, get_run_logger, tags, task
from prefect.cache_policies import NO_CACHE
from prefect.utilities.annotations import quote
from rich.console import Console

from pipelines import runs, server
from roadseg import tracking
from roadseg.config import Config, read
from roadseg.errors import reported
from roadseg.stages import registered, search, trainable
from roadseg.stages.stage import Stage, stage
from roadseg.stages.training import Course


@task(name="latency table", cache_policy=NO_CACHE)
def measure(config: Config, course: Course) -> pd.DataFrame:
    """Times every network in every deployed form, alone on the machine."""
    return search.latency_table(config, course)


@task(name="trial", cache_policy=NO_CACHE)
def trial(study: search.Search) -> str:
    """One recipe, trained and scored."""
    line = study.run()
    get_run_logger().info(line)
    return line


@flow(name="search", validate_parameters=False)
def run(config: Config, running: Stage) -> None:
    """Opens the study where it was, runs what is left of it and places models/search/."""
    runs.close_stale("search")
    course = Course.open(config)
    trainable.check_crops(config, course)
    table = measure(quote(config), quote(course))
    key = search.key(course, search.admitted(config, table))
    with (
        tracking.connect() as tracker,
        tracker.parent(kind="search", key=key, name=f"search-{course.space.name}-{key}") as parent,
        runs.turn_on(course.device),
    ):
        study = search.Search(config, course, table, parent)
        while study.remaining:
            number = config.search.trials - study.remaining
            print(trial.with_options(task_run_name=f"trial {number + 1}")(quote(study)))
        study.write(running)
    Console().print(f"finalists: {', '.join(recipe.name for recipe in study.finalists())}")


def main() -> None:
    with reported("search"), stage("search") as running:
        config = registered.pinned(read())
        trainable.check(config)
        with server.api(), tags(runs.PROJECT):
            run(quote(config), quote(running))


if __name__ == "__main__":
    main()
