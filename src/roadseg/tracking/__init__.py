"""What is recorded in MLflow, and where it is kept: the only package that imports mlflow.

    with tracking.connect() as tracker:                          # records nothing under ROADSEG_TRACKING=off
        with tracker.parent(kind="search", key=study, name="search") as parent:
            with parent.child(key=f"{study}-3", name="trial 3", params={...}) as run:
                if not run.finished:
                    run.metrics({"val_miou": 0.5}, step=1)

`null` says what runs and trackers offer, and offers it without MLflow; `runs` is the same with MLflow. `server` finds
or starts the MLflow server, whose process is `__main__`; `registry` keeps the registered models, and `model` is the
code that MLflow loads one with; `provenance` is what every record carries.

mlflow takes seconds to import: only `connect` and `open_registry` do it, while a server that they started gets ready.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from roadseg.errors import UserError
from roadseg.tracking import server
from roadseg.tracking.null import NullTracker, Parent, Run, Tracker

if TYPE_CHECKING:
    from roadseg.tracking.registry import Registry

__all__ = [
    "EXPERIMENT",
    "SWITCH",
    "NullTracker",
    "Parent",
    "Run",
    "Tracker",
    "connect",
    "is_on",
    "open_registry",
    "server",
]

# MLflow's own noise: two lines for each run that ends, a bar for each folder of files that is copied.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

SWITCH = "ROADSEG_TRACKING"
EXPERIMENT = "roadseg"


def is_on() -> bool:
    """Whether ROADSEG_TRACKING leaves MLflow on. Raises UserError for a value other than on, off or nothing."""
    value = os.environ.get(SWITCH) or "on"
    if value not in ("on", "off"):
        raise UserError(f"{SWITCH} is {value!r}: use on or off")
    return value == "on"


@contextmanager
def connect(experiment: str = EXPERIMENT) -> Iterator[Tracker]:
    """A tracker for the length of the block. Runs whose process died are ended as KILLED on entry.

    Raises UserError if MLFLOW_TRACKING_URI is set and no MLflow server answers there.
    """
    if not is_on():
        yield NullTracker()
        return
    with server.connect() as uri:
        from roadseg.tracking.runs import MlflowTracker

        yield MlflowTracker(uri, experiment)


@contextmanager
def open_registry(*, create: bool = True) -> "Iterator[Registry]":
    """The registered models for the length of the block, whatever ROADSEG_TRACKING says.

    create: whether a new, empty store may be made where there is none. Raises UserError if not and there is none.
    """
    with server.connect(create=create) as uri:
        from roadseg.tracking.registry import Registry

        yield Registry(uri)
