"""A copy of the project, made short, in which tests run the line as a user does.

What runs in it are real processes: DVC, the flows with a Prefect server of their own, MLflow servers. The scenes are
few and the trainings are short; what is tested is the line, not the model.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import yaml

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
        try:
            output, _ = process.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # or it runs on beside the tests that follow
            output, _ = process.communicate(timeout=60)
            raise AssertionError(f"{' '.join(command)} hangs:\n{output}") from None
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
