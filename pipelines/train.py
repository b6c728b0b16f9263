"""The finalists' training as a Prefect flow, a task a finalist: `python -m pipelines.train` is what dvc.yaml runs.

With `train.processes` torchrun starts it anew as several processes: the first is the stage, with its lock, its flow and
its records; the others only train.
"""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from prefect import flow, tags, task
from prefect.cache_policies import NO_CACHE
from prefect.states import State
from prefect.utilities.annotations import quote
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from pipelines import runs, server
from pipelines.processes import die_with_parent
from roadseg import distributed, tracking
from roadseg.config import Config, read
from roadseg.errors import StageFailure, UserError, reported
from roadseg.stages import registered, train
from roadseg.stages.stage import Stage, recorded, stage
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
    study, recipes = train.finalists()
    course = Course.open(config)
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


def multiply(processes: int, command: Sequence[str] = ("-u", "-m", "pipelines.train")) -> int:
    """Lets torchrun start this command so many times. The exit code of the process that failed first, 0 where none did;
    it has said why, so torchrun's own report of it is not shown. StageFailure where a signal ended it."""
    if torch.cuda.is_available() and processes > torch.cuda.device_count():
        raise UserError(
            f"params.yaml: train.processes: {processes} processes need a GPU each, and there are "
            f"{torch.cuda.device_count()}: lower it"
        )
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // processes)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    settings = LaunchConfig(1, 1, processes, rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0)
    try:
        elastic_launch(settings, sys.executable)(*command)
    except ChildFailedError as error:
        number, first = error.get_first_failure()
        if first.exitcode < 0:
            memory = ", as a system does that is out of memory" if first.exitcode == -signal.SIGKILL else ""
            raise StageFailure(
                f"process {number + 1} of {processes} was ended by signal {-first.exitcode}{memory}; started again, "
                "training goes on from its last checkpoint"
            ) from None
        return first.exitcode
    except SignalException:
        raise KeyboardInterrupt from None
    return 0


def main() -> None:
    if distributed.launched():  # by torchrun; while they wait for one another in C++, they would not hear a SIGTERM
        die_with_parent(signal.SIGKILL)
    with reported("train"):
        if int(os.environ.get("RANK", "0")) > 0:
            with (
                recorded("train"),
                Path(os.devnull).open("w", encoding="utf-8") as nowhere,
                redirect_stdout(nowhere),
            ):
                follow(registered.pinned(read()))
            return
        with stage("train") as running:
            config = registered.pinned(read())
            together = config.train.processes if not distributed.launched() else 1
            if together > 1:
                train.finalists()
                Course.open(config)  # what is wrong with the data is said by one process, and packs are built once
            else:
                with server.api(), tags(runs.PROJECT):
                    run(quote(config), quote(running))
        if together > 1:  # the first of them is the stage then
            sys.exit(multiply(together))


if __name__ == "__main__":
    main()
