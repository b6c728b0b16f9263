"""Runs in MLflow: one parent a study, one child a trial or finalist, each found again by its tag `roadseg.key`.

A stage that DVC restores from its cache never ran, and one that was killed runs again: neither may leave a second run
or one that is RUNNING for ever. So runs are found by key, reopened unless FINISHED, and those of a dead process are
ended as KILLED whenever somebody connects. Only `MlflowClient` is used, which has no global state: trials may run in
threads.
"""

import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.data.pandas_dataset import from_pandas
from mlflow.data.sources import LocalArtifactDatasetSource
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.entities import Run as Record
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_PARENT_RUN_ID

from roadseg.tracking import provenance
from roadseg.tracking.null import Run

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

KEY = "roadseg.key"
KIND = "roadseg.kind"
PARAM_LENGTH = 6000
"""MLflow's limit on a parameter's characters."""


class MlflowRun:
    """A `null.Run` that is kept."""

    def __init__(self, client: MlflowClient, record: Record) -> None:
        self._client = client
        self._experiment = record.info.experiment_id
        self.id: str = record.info.run_id
        self.url = f"{client.tracking_uri}/#/experiments/{self._experiment}/runs/{self.id}"
        self.finished: bool = record.info.status == "FINISHED"

    def metrics(self, values: Mapping[str, float | None], step: int = 0) -> None:
        now = int(time.time() * 1000)
        kept = {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}
        self._client.log_batch(self.id, metrics=[Metric(_name(name), value, now, step) for name, value in kept.items()])

    def params(self, values: Mapping[str, Any]) -> None:
        # MLflow writes a parameter once; a run that is resumed may have the same weights by another path.
        known = self._client.get_run(self.id).data.params
        new = {_name(name): str(value)[:PARAM_LENGTH] for name, value in values.items() if _name(name) not in known}
        self._client.log_batch(self.id, params=[Param(name, value) for name, value in new.items()])

    def tags(self, values: Mapping[str, Any]) -> None:
        self._client.log_batch(self.id, tags=[RunTag(name, str(value)) for name, value in values.items()])

    def figure(self, name: str, figure: "Figure | np.ndarray") -> None:
        log = self._client.log_image if hasattr(figure, "dtype") else self._client.log_figure
        log(self.id, figure, name)

    def artifact(self, path: Path, folder: str = "") -> None:
        log = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        log(self.id, str(path), folder or None)

    def table(self, name: str, frame: "pd.DataFrame") -> None:
        self._client.log_text(self.id, frame.to_csv(index=False), name)

    def dataset(self, frame: "pd.DataFrame", name: str, digest: str, context: str = "training") -> None:
        source = LocalArtifactDatasetSource(f"dvc:{digest}")  # a name, not a place on this disk
        whole = frame.select_dtypes("integer").columns  # MLflow warns of these: they could not hold a missing value
        data = from_pandas(frame.astype(dict.fromkeys(whole, float)), source=source, name=name, digest=digest)
        entry = DatasetInput(data._to_mlflow_entity(), [InputTag(MLFLOW_DATASET_CONTEXT, context)])
        self._client.log_inputs(self.id, datasets=[entry])

    @contextmanager
    def child(
        self, key: str, name: str, params: Mapping[str, Any] | None = None, tags: Mapping[str, Any] | None = None
    ) -> Iterator[Run]:
        run = _open(self._client, self._experiment, key, name, {MLFLOW_PARENT_RUN_ID: self.id, **(tags or {})})
        if run.finished:
            yield run
            return
        with _ending(self._client, run):
            run.params(params or {})
            yield run


class MlflowTracker:
    """The MLflow server at `uri`, and the experiment that runs are written to (made if it is not there)."""

    def __init__(self, uri: str, experiment: str) -> None:
        self.uri = uri
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        found = self._client.get_experiment_by_name(experiment)
        self._experiment: str = found.experiment_id if found else self._client.create_experiment(experiment)
        self._bury()

    @contextmanager
    def parent(self, kind: str, key: str, name: str, tags: Mapping[str, Any] | None = None) -> Iterator[Run]:
        run = _open(self._client, self._experiment, key, name, {KIND: kind, **(tags or {})}, reopen=True)
        with _ending(self._client, run):
            yield run

    def latest(self, tags: Mapping[str, str]) -> Run | None:
        wanted = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())
        found = self._client.search_runs(
            [self._experiment], wanted, max_results=1, order_by=["attributes.start_time DESC"]
        )
        return MlflowRun(self._client, found[0]) if found else None

    def _bury(self) -> None:
        """End the runs that a killed process of this host left RUNNING."""
        for run in self._client.search_runs([self._experiment], "attributes.status = 'RUNNING'"):
            if provenance.is_dead(run.data.tags.get("roadseg.process", "")):
                self._client.set_terminated(run.info.run_id, "KILLED")


def _open(
    client: MlflowClient, experiment: str, key: str, name: str, tags: Mapping[str, Any], *, reopen: bool = False
) -> MlflowRun:
    """The run tagged with this key, made if there is none. A FINISHED one is reopened only on demand."""
    found = client.search_runs([experiment], f"tags.`{KEY}` = '{key}'", max_results=1)
    everything = {**provenance.tags(), **{name: str(value) for name, value in tags.items()}, KEY: key}
    if not found:
        return MlflowRun(client, client.create_run(experiment, tags=everything, run_name=name))
    run = MlflowRun(client, found[0])
    if not run.finished or reopen:
        if KIND in found[0].data.tags:
            everything[KIND] = found[0].data.tags[KIND]
        run.tags(everything)
        client.update_run(run.id, status="RUNNING", name=name)
    return run


@contextmanager
def _ending(client: MlflowClient, run: MlflowRun) -> Iterator[None]:
    """End the run as what became of the block says."""
    status = "KILLED"
    try:
        yield
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        client.set_terminated(run.id, status)


def _name(name: str) -> str:
    """MLflow takes letters, digits, and _-.:/ and blanks in a name."""
    return re.sub(r"[^\w\-./: ]", " ", name)
