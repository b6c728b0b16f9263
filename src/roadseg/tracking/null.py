"""What a run and a tracker offer, and both without MLflow: ROADSEG_TRACKING=off drops what it is given."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure


class Run(Protocol):
    """One run. Names of metrics and parameters may hold any character: what MLflow refuses becomes a blank."""

    id: str
    """MLflow's; empty where there is none."""
    url: str
    """Address of the run's page; empty where there is none."""
    finished: bool
    """Whether it was FINISHED before this process opened it: then its work is done and recorded."""

    def metrics(self, values: Mapping[str, float | None], step: int = 0) -> None:
        """Log finite numbers at this step; None and NaN (a class that the split lacks) are left out."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters; a name that the run has keeps its first value."""

    def tags(self, values: Mapping[str, Any]) -> None:
        """Set tags; a later value replaces an earlier one."""

    def figure(self, name: str, figure: "Figure | np.ndarray") -> None:
        """Keep a matplotlib figure, or a picture (uint8 HWC RGB 0-255), as the artifact `name`, say "curves.png"."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keep a file, or a folder with all that it holds, under `folder` in the run's artifacts."""

    def table(self, name: str, frame: "pd.DataFrame") -> None:
        """Keep a table as the artifact `name`, say "trials.csv"."""

    def dataset(self, frame: "pd.DataFrame", name: str, digest: str, context: str = "training") -> None:
        """Record the data as an MLflow input. frame: a row a scene, for schema and size; digest: at most 36 letters."""

    def child(
        self, key: str, name: str, params: Mapping[str, Any] | None = None, tags: Mapping[str, Any] | None = None
    ) -> "AbstractContextManager[Run]":
        """The child run of this key: a FINISHED one as it is, else reopened or new, with params and tags set.

        It ends as FINISHED; as FAILED on an exception and KILLED on an interrupt. Mark a pruned trial by the tag
        `roadseg.state`.
        """


Parent = Run


class Tracker(Protocol):
    """Where runs are written to."""

    uri: str
    """The MLflow server's address; empty where there is none."""

    def parent(
        self, kind: str, key: str, name: str, tags: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[Run]:
        """The run of this key, reopened or new, for the length of the block; then FINISHED, FAILED or KILLED.

        kind: the stage that first opened it, a tag. A later stage opens the same run by the same key.
        """

    def latest(self, tags: Mapping[str, str]) -> Run | None:
        """The newest run that carries all these tags, as it is: logging to it does not reopen it."""


class NullRun:
    """Takes what a `Run` takes and drops it."""

    id = ""
    url = ""
    finished = False

    def metrics(self, values: Mapping[str, float | None], step: int = 0) -> None: ...

    def params(self, values: Mapping[str, Any]) -> None: ...

    def tags(self, values: Mapping[str, Any]) -> None: ...

    def figure(self, name: str, figure: "Figure | np.ndarray") -> None: ...

    def artifact(self, path: Path, folder: str = "") -> None: ...

    def table(self, name: str, frame: "pd.DataFrame") -> None: ...

    def dataset(self, frame: "pd.DataFrame", name: str, digest: str, context: str = "training") -> None: ...

    def child(
        self, key: str, name: str, params: Mapping[str, Any] | None = None, tags: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[Run]:
        return nullcontext(NullRun())


class NullTracker:
    """Has no store: every run is a `NullRun`."""

    uri = ""

    def parent(
        self, kind: str, key: str, name: str, tags: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[Run]:
        return nullcontext(NullRun())

    def latest(self, tags: Mapping[str, str]) -> Run | None:
        return None
