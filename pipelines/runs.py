"""What every flow needs of the Prefect server beside running: ended runs that look alive, and the GPU's turn."""

import hashlib
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

import prefect.runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import StateType
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Cancelling, Crashed, State

from roadseg import paths

PROJECT = f"project:{hashlib.sha256(f'{platform.node()} {paths.home()}'.encode()).hexdigest()[:12]}"
"""The tag of this project's runs: a server may have runs of others too."""
ALIVE = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
GPU = "gpu"


def close_stale(flow_name: str) -> int:
    """Ends, as Crashed, this project's runs of a flow that a killed process left unfinished, with their tasks. Returns
    how many.

    Only a caller that holds the flow's lock (one writer) knows that no other run of it is alive; its own run is spared.
    """
    own = prefect.runtime.flow_run.id
    unfinished = FlowRunFilter.model_validate({"state": {"type": {"any_": ALIVE}}, "tags": {"all_": [PROJECT]}})
    flow = FlowFilter(name=FlowFilterName(any_=[flow_name]))
    ended: State[Any] = Crashed(message="its process was killed; closed when the next one started")
    with get_client(sync_client=True) as client:
        stale = [
            run for run in client.read_flow_runs(flow_filter=flow, flow_run_filter=unfinished) if str(run.id) != own
        ]
        for run in stale:
            tasks = client.read_task_runs(
                flow_run_filter=FlowRunFilter.model_validate({"id": {"any_": [run.id]}}),
                task_run_filter=TaskRunFilter.model_validate({"state": {"type": {"any_": ALIVE}}}),
            )
            for task in tasks:
                client.set_task_run_state(task.id, ended, force=True)
            client.set_flow_run_state(run.id, ended, force=True)
    return len(stale)


def cancel(flow_name: str, patience_s: float = 40.0) -> int:
    """Cancels the runs of a flow and waits until what serves them has ended their processes. Returns how many."""
    flow = FlowFilter(name=FlowFilterName(any_=[flow_name]))
    alive = FlowRunFilter.model_validate({"state": {"type": {"any_": ALIVE}}})
    deadline = time.monotonic() + patience_s
    with get_client(sync_client=True) as client:
        running = client.read_flow_runs(flow_filter=flow, flow_run_filter=alive)
        for run in running:
            client.set_flow_run_state(run.id, Cancelling())
        while client.read_flow_runs(flow_filter=flow, flow_run_filter=alive) and time.monotonic() < deadline:
            time.sleep(0.5)
    return len(running)


def cancel_missed(flow_name: str) -> int:
    """Cancels scheduled runs whose time passed while nothing served them, or all would start now. Returns how many."""
    before_now = {"before_": datetime.now(UTC)}
    missed = FlowRunFilter.model_validate(
        {"state": {"type": {"any_": [StateType.SCHEDULED]}}, "next_scheduled_start_time": before_now}
    )
    flow = FlowFilter(name=FlowFilterName(any_=[flow_name]))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_filter=flow, flow_run_filter=missed)
        for run in runs:
            client.set_flow_run_state(run.id, Cancelled(message="its time passed while `make up` was not running"))
    return len(runs)


def create_gpu_limit(slots: int = 1) -> None:
    """Makes the server's `gpu` limit where it lacks one: without it, Prefect only warns and runs everything at once."""
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(GPU)
        except ObjectNotFound:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU, limit=slots))


@contextmanager
def turn_on(device: Literal["cpu", "cuda"]) -> Iterator[None]:
    """Waits for this run's turn on the GPU, strictly; on a CPU there is nothing to wait for."""
    if device == "cpu":
        yield
        return
    create_gpu_limit()
    with concurrency(GPU, occupy=1, strict=True):
        yield
