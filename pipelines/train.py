"""The finalists' training as a Prefect flow, a task a finalist: `python -m pipelines.train` is what dvc.yaml runs.

With `train.processes` it becomes torchrun and comes back as several processes: the first is the stage, with its lock,
its flow and its records; the others only train.
"""

import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NoReturn

import torch
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.states import State
from prefect.utilities.annotations import quote

from pipelines import runs, server
from roadseg import distributed, tracking
from roadseg.config import Config, read
from roadseg.errors import StageFailure, UserError, reported
from roadseg.stages import registered, train
from roadseg.stages.stage import Stage, stage
from roadseg.stages.training import Course, Recipe
from roadseg.tracking import Parent
from roadseg.tracking.null import NullRun


def _worth_another(task: Any, run: Any, state: State[Any]) -> bool:
    """Whether a failed training may go better a second time: not where it was the data's or the settings' fault."""
    return not isinstance(state.result(raise_on_failure=False), UserError | StageFailure)


@task(name="finalist", cache_policy=NO_CACHE, retries=1, retry_delay_seconds=5, retry_condition_fn=_worth_another)
def finalist(config: Config, course: Course, recipe: Recipe, parent: Parent) -> Path:
    """Trains one finalist, from its last checkpoint where it has one: so does a second attempt."""
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
            # several processes end together, or one would wait for the other for ever
            task_run = finalist.with_options(task_run_name=recipe.name, retries=0 if distributed.launched() else 1)
            return task_run(quote(config), quote(course), quote(recipe), quote(parent))

        with distributed.joined():
            trained = train.each(recipes, one)
        train.write(config, course, trained, running)


def follow(config: Config) -> None:
    """Trains every finalist beside the first process, which alone says, records and keeps anything."""
    course, (_, recipes) = Course.open(config), train.finalists()
    with distributed.joined():
        train.each(recipes, lambda recipe: train.train(config, course, recipe, NullRun()))


def multiply(processes: int) -> NoReturn:
    """Goes on as torchrun, which starts this command so many times."""
    if torch.cuda.is_available() and processes > torch.cuda.device_count():
        raise UserError(
            f"params.yaml: train.processes: {processes} processes need a GPU each, and there are "
            f"{torch.cuda.device_count()}: lower it"
        )
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    os.execv(sys.executable, [sys.executable, *torchrun, "-m", "pipelines.train"])


def main() -> None:
    with reported("train"):
        if int(os.environ.get("RANK", "0")) > 0:
            with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
                follow(registered.pinned(read()))
            return
        with stage("train") as running:
            config = registered.pinned(read())
            if config.train.processes > 1 and not distributed.launched():
                Course.open(config)  # what is wrong with the data is said by one process, and packs are built once
                multiply(config.train.processes)
            with server.api():
                run(quote(config), quote(running))


if __name__ == "__main__":
    main()
