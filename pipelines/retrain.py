"""The scheduled `retrain` flow: dvc.yaml's stages in order, in a git worktree of their own, a task each.

In: a git revision, and settings that replace some of params.yaml's. Out: whatever the line makes (a new champion, or
none), and a report on the run's page. The user's own files are never touched: see pipelines/worktree.py.
"""

import os
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Failed, State

from pipelines import runs
from pipelines.report import report
from pipelines.worktree import Ran, StageFailed, Worktree, worktree
from roadseg.errors import UserError
from roadseg.tracking import server as mlflow_server

REPORT = "retrain-report"


@task(task_run_name="{stage}", cache_policy=NO_CACHE, retries=0)
def run_stage(stage: str, tree: Worktree) -> Ran | State[Any]:
    """One stage of the graph. Its failure's message is the stage's own line; trying again would not help."""
    try:
        return tree.repro(stage, get_run_logger().info)
    except StageFailed as failure:
        return Failed(message=str(failure))


@flow(name="retrain", retries=0)
def retrain(revision: str = "HEAD", overrides: dict[str, Any] = {}) -> State[Any] | None:  # noqa: B006
    """Rebuilds the whole line from the data to the registry; what did not change is restored from DVC's cache.

    The new model becomes the champion only if it beats today's champion within the latency budget.

    Args:
        revision: The code and settings to train with: a commit, a branch or a tag.
        overrides: Replaces values of params.yaml, by dotted key: {"train.epochs": 3, "data.sources": ["camvid"]}
    """
    try:
        with worktree(revision) as tree:
            runs.close_stale("retrain")
            tree.override(overrides)
            ran = []
            for stage in tree.stages():
                state = run_stage(stage, tree, return_state=True)
                if not state.is_completed():
                    raise StageFailed(state.message)
                ran.append(state.result())
            mlflow = os.environ.get("MLFLOW_TRACKING_URI") or mlflow_server.running()
            text = report(tree.root, ran, commit=tree.commit, overrides=overrides, mlflow=mlflow)
            create_markdown_artifact(text, key=REPORT, description=f"Retrain of {tree.commit[:8]}")
    except (StageFailed, UserError) as failure:
        return Failed(message=str(failure))
    return None
